"""Folders that killed workers left behind: the next worker removes them, and only them."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from worker import leftovers

PREFIX = "labelmill-test-"
#: A process that makes a folder, says so, and waits to be killed.
MAKER = f"""
import sys
from worker import leftovers
print(leftovers.make_folder({PREFIX!r}), flush=True)
sys.stdin.read()
"""


@pytest.fixture(autouse=True)
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A place for temporary files of its own."""
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(tempfile, "tempdir", None)
    return tmp_path


def test_a_folder_goes_when_its_owner_was_killed_and_not_before(temporary: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", MAKER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as maker:
        assert maker.stdout is not None
        folder = Path(maker.stdout.readline().strip())
        (folder / "counter_1.db").write_bytes(b"counts")
        assert leftovers.sweep(PREFIX) == []
        maker.kill()
        maker.wait()
    assert leftovers.sweep(PREFIX) == [folder]
    assert list(temporary.iterdir()) == []


def test_an_id_that_is_used_again_is_another_owner() -> None:
    folder = Path(leftovers.make_folder(PREFIX))
    owner = json.loads((folder / leftovers.OWNER).read_bytes())
    (folder / leftovers.OWNER).write_text(json.dumps({**owner, "started": "1"}))
    assert leftovers.sweep(PREFIX) == [folder]


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"where": "another machine", "pid": 999999999, "started": "1"}'])
def test_what_nobody_here_can_judge_stays(content: str) -> None:
    folder = Path(leftovers.make_folder(PREFIX))
    (folder / leftovers.OWNER).write_text(content)
    assert leftovers.sweep(PREFIX) == []
    assert folder.is_dir()


def test_a_link_is_not_followed(temporary: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    (elsewhere / leftovers.OWNER).write_text("{}")
    (temporary / f"{PREFIX}link").symlink_to(elsewhere)
    assert leftovers.sweep(PREFIX) == []
    assert (elsewhere / leftovers.OWNER).exists()
