"""What commands print for people."""

from __future__ import annotations

import pytest

from producer.commands.display import print_fields, print_table

DIGEST = f"sha256:{7:064}"


def test_rows_are_whole_lines_without_blanks_at_their_ends(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    row = ("worker-of-a-long-name", "READY", f"efficientnet-lite0 {DIGEST}" * 3, "3 s ago")
    print_table(("worker", "state", "models", "last chunk"), [row, ("w\u2028", "BUSY", "noop", "")])
    head, first, second = capsys.readouterr().out.removesuffix("\n").split("\n")
    assert head.split() == ["worker", "state", "models", "last", "chunk"]
    assert first.split("  ") == list(row)
    assert second.split() == ["w", "BUSY", "noop"]
    assert not second.endswith(" ")


def test_fields_without_a_value_are_left_out(capsys: pytest.CaptureFixture[str]) -> None:
    print_fields([("job", "j"), ("webhook", ""), ("model", DIGEST)])
    assert capsys.readouterr().out.splitlines() == ["job    j", f"model  {DIGEST}"]
