"""docs/models.md: every command and the Python of it are run as they stand."""

from __future__ import annotations

import re
import shlex
import sys
from pathlib import Path

import pytest

from tests.support.servers import ROOT, RedisServer, WorkerProcess
from worker.cli import main

PAGE = (ROOT / "docs" / "models.md").read_text()


def block(language: str) -> str:
    found = re.search(rf"```{language}\n(.*?)```", PAGE, re.DOTALL)
    assert found is not None
    return found[1]


def command_of(line: str, folder: Path) -> list[str]:
    """The arguments of the same command, with the page's build folder in the test's own."""
    program, *arguments = shlex.split(line.replace("build/models", str(folder)))
    assert program == "labelmill-worker"
    return arguments


def test_five_commands_lead_from_a_pth_to_a_warm_worker(
    redis: RedisServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(ROOT)
    *looks, serve = block("sh").strip().splitlines()
    assert len(looks) == 4
    assert ".pth" in looks[0]
    for words, line in zip(("largest difference", "airplane", "READY", "best for bulk work"), looks, strict=True):
        assert main(command_of(line, tmp_path)) == 0
        assert words in capsys.readouterr().out

    command = [sys.executable, "-m", "worker", *command_of(serve, tmp_path)]
    worker = WorkerProcess(redis, command, log=tmp_path / "worker.log", env={})
    try:
        worker.wait_ready()
        worker.terminate()
        assert worker.wait() == 0
    finally:
        worker.kill9()


def test_the_python_of_the_page_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)

    exec(compile(block("python"), "models.md", "exec"), {"__name__": "models_page"})

    assert capsys.readouterr().out.startswith("trace ")
    assert (tmp_path / "cell.onnx").is_file()


def test_the_page_names_every_exit_code_of_a_model_file() -> None:
    from jobs import errors

    classes = [getattr(errors, name) for name in errors.__all__]
    kinds = [kind for kind in classes if isinstance(kind, type) and issubclass(kind, errors.ModelFileError)]
    codes = {kind.exit_code for kind in kinds}
    assert len(kinds) > 10
    named = {int(code) for code in re.findall(r"^\| (\d+) \|", PAGE, re.MULTILINE)}

    assert codes <= named
