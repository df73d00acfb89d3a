"""What is compiled of decoding: which library is used, and which is not."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from tests.support.compiled import compiled
from worker import kernels


def test_a_library_of_another_version_is_not_used_and_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    compiled()
    source = tmp_path / "old.c"
    source.write_text("int labelmill_is_usable(void) { return 1; }")
    library = tmp_path / "old.so"
    subprocess.run(["cc", "-shared", "-fPIC", str(source), "-o", str(library)], check=True)
    monkeypatch.setattr(kernels, "built", lambda: library)
    assert kernels.kernel.__wrapped__() is None
    assert "another version" in caplog.text
