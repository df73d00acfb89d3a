"""Folders of processes that a kill -9 ended before they could remove them: the next one to start does it.

A folder says whose it is, so that one is removed only where its owner is surely dead: a process of this machine and of
this container, by its id and by when it started, for ids are used again.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import tempfile
from pathlib import Path

__all__ = ["make_folder", "sweep"]

#: Within a folder: whose it is.
OWNER = "owner.json"
#: Place of the start time among the fields of /proc/<pid>/stat that follow the name, see proc(5).
_START = 19


def make_folder(prefix: str) -> str:
    """A new temporary folder of this process's, whose name begins with ``prefix``."""
    folder = tempfile.mkdtemp(prefix=prefix)
    pid = os.getpid()
    owner = {"where": _where(), "pid": pid, "started": _started(pid)}
    Path(folder, OWNER).write_text(json.dumps(owner))
    return folder


def sweep(prefix: str) -> list[Path]:
    """Remove the folders whose owners are dead; returns them. Those of other users or machines stay."""
    return [folder for folder in Path(tempfile.gettempdir()).glob(f"{prefix}*") if _is_left(folder) and _remove(folder)]


def _is_left(folder: Path) -> bool:
    try:
        if folder.is_symlink() or folder.lstat().st_uid != os.getuid():
            return False
        owner = json.loads((folder / OWNER).read_bytes())
        return bool(owner["where"] == _where() and _started(int(owner["pid"])) != owner["started"])
    except (OSError, ValueError, KeyError, TypeError):
        return False  # being made or removed just now, or somebody else's


def _remove(folder: Path) -> bool:
    shutil.rmtree(folder, ignore_errors=True)
    return not folder.exists()


def _where() -> str:
    """This machine and this container: process ids of others mean nothing here."""
    return f"{socket.gethostname()} {os.readlink('/proc/self/ns/pid')}"


def _started(pid: int) -> str:
    """When a process started, in ticks since the machine did; empty where it is dead."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return ""
    return "" if fields[0] in "ZX" else fields[_START]
