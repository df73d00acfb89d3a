"""The command line: what is written wrong is said in one line."""

from __future__ import annotations

import argparse

import pytest

from jobs.parser import positive
from producer.cli import COMMANDS, main
from producer.commands.options import duration, pair


@pytest.mark.parametrize(
    ("text", "seconds"), [("90", 90), ("90s", 90), ("15m", 900), ("1.5h", 5400), ("7D", 604_800), ("2w", 1_209_600)]
)
def test_durations_are_read_with_their_units(text: str, seconds: float) -> None:
    assert duration(text) == seconds


@pytest.mark.parametrize("text", ["", "0", "-1h", "1y", "h", "1h30m", "nan", "inf"])
def test_what_is_no_duration_is_refused(text: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError, match="24h"):
        duration(text)


def test_pairs_and_numbers_are_read() -> None:
    assert pair("k=v=w") == ("k", "v=w")
    assert positive("7") == 7
    for read, text in ((pair, "kv"), (pair, "=v"), (positive, "0"), (positive, "x"), (positive, "²")):
        with pytest.raises(argparse.ArgumentTypeError):
            read(text)


@pytest.mark.parametrize(
    "arguments",
    [
        ["submit"],
        ["submit", "x", "--top-k", "0"],
        ["submit", "x", "--expires", "soon"],
        ["submit", "x", "--by", "mail"],
        ["submit", "x", "--metadata", "k"],
        ["submit", "x", "--job-id", "a b"],
        ["submit", "x", "--webhook", "http://[::1"],
        ["results"],
        ["results", "j", "--format", "xml"],
        ["status"],
        ["jobs", "--state", "lost"],
        ["dead-letters", "burn", "j"],
        ["nothing"],
        [],
    ],
)
def test_bad_usage_is_one_line_and_exit_code_2(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    said = capsys.readouterr()
    assert ended.value.code == 2
    assert said.out == ""
    assert said.err.count("\n") == 1
    assert "--help" in said.err


@pytest.mark.parametrize("command", sorted(COMMANDS))
def test_every_command_explains_itself(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main([command, "--help"])
    text = capsys.readouterr().out
    assert ended.value.code == 0
    assert "[LABELMILL_BROKER_URL]" in text


def test_a_redis_that_is_not_there_is_one_line_and_exit_code_5(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("LABELMILL_BROKER_URL", "redis+socket:///nowhere/redis.sock")
    assert main(["jobs"]) == 5
    said = capsys.readouterr().err
    assert said.startswith("labelmill: Redis does not answer at unix:///nowhere/redis.sock")
    assert said.count("\n") == 1
