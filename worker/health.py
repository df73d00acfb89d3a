"""``labelmill-worker health``: ask the workers of this machine how they are, for probes and for people.

Each worker's main process answers on a Unix socket in ``LABELMILL_STATE_DIR`` (else in a folder of the user's own
beside the temporary files), without Redis: a Redis that is gone is no reason to restart a worker.
"""

from __future__ import annotations

import argparse
import atexit
import json
import os
import socket
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from jobs.errors import UsageError
from jobs.parser import positive
from jobs.settings import Settings

__all__ = ["EPILOG", "Beacon", "add_arguments", "ask", "folder", "run"]

EPILOG = """exit codes: 0 all are well; 1 one is not, does not answer, or there is none.
examples:
  labelmill-worker health            # readiness: READY or BUSY
  labelmill-worker health --live     # liveness: anything but DEAF and SETUP_FAILED
"""
WELL = frozenset({"READY", "BUSY"})
DEAD = frozenset({"DEAF", "SETUP_FAILED"})
#: Seconds that a worker may take to answer.
ANSWER_S = 5.0
_LONGEST_PATH = 100  # of a Unix socket, in bytes, less a little


def folder(settings: Settings) -> Path:
    """Where the sockets are."""
    return Path(settings.state_dir or Path(tempfile.gettempdir()) / f"labelmill-{os.getuid()}")


class Beacon:
    """Answers everyone who connects with one JSON line of ``status()``, in a thread of its own."""

    def __init__(self, where: Path, status: Callable[[], dict[str, Any]]) -> None:
        self.path = where / f"worker-{os.getpid()}.sock"
        self.status = status

    def start(self) -> None:
        """Begin to answer. Raises :class:`UsageError` where the folder cannot be used."""
        if len(os.fsencode(self.path)) > _LONGEST_PATH:
            raise UsageError(f"LABELMILL_STATE_DIR: {self.path.parent} is too long a path for a socket")
        listener = socket.socket(socket.AF_UNIX)
        try:
            self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            self.path.unlink(missing_ok=True)
            _sweep(self.path.parent)
            listener.bind(str(self.path))
        except OSError as exc:
            listener.close()
            raise UsageError(f"LABELMILL_STATE_DIR: cannot use {self.path.parent} ({exc.strerror})") from None
        listener.listen()
        atexit.register(self._remove, os.getpid())
        threading.Thread(target=self._answer, args=(listener,), name="beacon", daemon=True).start()

    def _remove(self, pid: int) -> None:
        if os.getpid() == pid:  # not at the end of a process that was forked off
            self.path.unlink(missing_ok=True)

    def _answer(self, listener: socket.socket) -> None:
        while True:
            caller, _ = listener.accept()
            with caller, suppress(BrokenPipeError, ConnectionResetError):  # whoever asked has gone
                caller.sendall(json.dumps(self.status()).encode() + b"\n")


def _sweep(where: Path) -> None:
    """Remove the sockets of workers that were killed: nobody listens on them."""
    for path in where.glob("worker-*.sock"):
        with socket.socket(socket.AF_UNIX) as line:
            line.setblocking(False)
            try:
                line.connect(str(path))
            except ConnectionRefusedError:
                path.unlink(missing_ok=True)
            except (BlockingIOError, FileNotFoundError):  # busy, or gone in this moment
                continue


def ask(where: Path) -> Iterator[dict[str, Any]]:
    """What each worker whose socket is in ``where`` says; ``{"pid", "state": ""}`` where it does not answer."""
    for path in sorted(where.glob("worker-*.sock")):
        pid = int(path.stem.partition("-")[2])
        with socket.socket(socket.AF_UNIX) as line:
            line.settimeout(ANSWER_S)
            try:
                line.connect(str(path))
                with line.makefile("rb") as answer:
                    yield json.loads(answer.readline())
            except (ConnectionRefusedError, FileNotFoundError):
                path.unlink(missing_ok=True)  # of a worker that was killed
            except (OSError, ValueError):
                yield {"pid": pid, "state": ""}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of ``health``."""
    parser.add_argument("--live", action="store_true", help="ask whether it lives, not whether it is ready")
    parser.add_argument("--pid", type=positive, help="only the worker whose main process this is")
    parser.add_argument("--json", action="store_true", help="one JSON line a worker, {} where there is none")


def run(args: argparse.Namespace) -> int:
    """Ask, print, and return 0 where all is well."""
    where = folder(Settings.from_env())
    found = [status for status in ask(where) if args.pid in (None, status["pid"])]
    for status in found:
        print(json.dumps(status) if args.json else _line(status))
    if not found:
        print(f"no worker answers in {where}" if not args.json else "{}")
    good = _lives if args.live else _is_ready
    return 0 if found and all(good(status["state"]) for status in found) else 1


def _lives(state: str) -> bool:
    return bool(state) and state not in DEAD


def _is_ready(state: str) -> bool:
    return state in WELL


def _line(status: dict[str, Any]) -> str:
    if not status["state"]:
        return f"{status['pid']}: no answer within {ANSWER_S:g} s"
    models = ", ".join(f"{model['name']} {model['digest'][:19]}" for model in status["models"])
    return f"{status['pid']}: {status['state']}, {status['busy']} in hand, {models}"
