"""The file that results are written to: it appears by rename, whole or not at all."""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from jobs.errors import UsageError

__all__ = ["open_target"]


@contextmanager
def open_target(path: Path | None) -> Iterator[IO[bytes]]:
    """A binary stream to a file, or to stdout for None. Nothing half-written stays behind."""
    if path is None:
        yield sys.stdout.buffer
        sys.stdout.buffer.flush()
        return
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    except OSError as exc:
        raise UsageError(f"cannot write {path}: {exc.strerror}") from None
    try:
        with os.fdopen(handle, "wb") as stream:
            os.fchmod(handle, 0o666 & ~_umask())
            yield stream
        os.replace(name, path)
    finally:
        with suppress(FileNotFoundError):  # there only where the block raised
            os.unlink(name)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
