"""The command line, run in this process or in one of its own."""

from __future__ import annotations

import contextlib
import io
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from producer.cli import main
from tests.support.servers import ROOT, RedisServer

__all__ = ["Done", "labelmill", "spawned"]


@dataclass(frozen=True)
class Done:
    """How a command ended, and what it printed."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """Its output, as JSON."""
        return json.loads(self.out)


def labelmill(redis: RedisServer, *arguments: object) -> Done:
    """Run ``labelmill`` here, on this Redis, as if in a pipe."""
    out, err = io.TextIOWrapper(io.BytesIO(), write_through=True), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            code = main([*map(str, arguments), "--broker", redis.broker_url])
        except SystemExit as exc:
            code = int(exc.code or 0)
    return Done(code, out.buffer.getvalue().decode(), err.getvalue())  # type: ignore[attr-defined]


@contextlib.contextmanager
def spawned(redis: RedisServer, *arguments: object, log: Path, **env: str) -> Iterator[subprocess.Popen[bytes]]:
    """``labelmill`` in a process of its own; killed at the end of the block, if it still runs."""
    command = [sys.executable, "-m", "producer", *map(str, arguments)]
    values = {**os.environ, "LABELMILL_BROKER_URL": redis.broker_url, **env}
    with log.open("ab") as output:
        process = subprocess.Popen(
            command, cwd=ROOT, env=values, stdin=subprocess.DEVNULL, stdout=output, stderr=output
        )
    try:
        yield process
    finally:
        if process.poll() is None:
            process.kill()
        process.wait()
