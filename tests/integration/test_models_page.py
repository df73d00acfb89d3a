"""docs/models.md: every command and the Python of it are run as they stand."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.servers import ROOT, RedisServer, WorkerProcess

PAGE = (ROOT / "docs" / "models.md").read_text()


def block(language: str) -> str:
    found = re.search(rf"```{language}\n(.*?)```", PAGE, re.DOTALL)
    assert found is not None
    return found[1]


def command_of(line: str, folder: Path) -> list[str]:
    """The same command of this environment, with the page's build folder in the test's own."""
    program, *arguments = shlex.split(line.replace("build/models", str(folder)))
    assert program == "labelmill-worker"
    return [sys.executable, "-m", "worker", *arguments]


def test_five_commands_lead_from_a_pth_to_a_warm_worker(redis: RedisServer, tmp_path: Path) -> None:
    *looks, serve = block("sh").strip().splitlines()
    assert len(looks) == 4
    assert ".pth" in looks[0]
    said = [
        subprocess.run(command_of(line, tmp_path), cwd=ROOT, check=True, capture_output=True, text=True).stdout
        for line in looks
    ]
    for words, text in zip(("largest difference", "airplane", "READY", "best for bulk work"), said, strict=True):
        assert words in text

    worker = WorkerProcess(redis, command_of(serve, tmp_path), log=tmp_path / "worker.log", env={})
    try:
        worker.wait_ready()
        worker.terminate()
        assert worker.wait() == 0
    finally:
        worker.kill9()


def test_the_python_of_the_page_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    environment = {"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin"}

    done = subprocess.run(
        [sys.executable, "-c", block("python")], env=environment, check=True, capture_output=True, text=True
    )

    assert done.stdout.startswith("trace ")
    assert (tmp_path / "cell.onnx").is_file()


def test_the_page_names_every_exit_code_of_a_model_file() -> None:
    from jobs import errors

    classes = [getattr(errors, name) for name in errors.__all__]
    kinds = [kind for kind in classes if isinstance(kind, type) and issubclass(kind, errors.ModelFileError)]
    codes = {kind.exit_code for kind in kinds}
    assert len(kinds) > 10
    named = {int(code) for code in re.findall(r"^\| (\d+) \|", PAGE, re.MULTILINE)}

    assert codes <= named
