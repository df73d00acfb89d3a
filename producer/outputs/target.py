"""The file that results are written to: it appears whole or not at all."""

from __future__ import annotations

import io
import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

from jobs.errors import ServiceError, UsageError
from producer.sources.openers import file_system, is_url, store_errors

__all__ = ["FileOnDisk", "open_target"]


class FileOnDisk(io.FileIO):
    """A file that is named where it cannot be written: of a full disk the system does not say which file it was."""

    def __init__(self, handle: int, path: Path, mode: str = "w") -> None:
        super().__init__(handle, mode)
        self._path = str(path)

    def write(self, data: Any) -> int:
        """As any file does; an :class:`OSError` has the path."""
        try:
            return super().write(data)
        except OSError as exc:
            raise OSError(exc.errno, exc.strerror, self._path) from None


@contextmanager
def open_target(target: Path | str | None) -> Iterator[IO[bytes]]:
    """A binary stream to a file, to an object of a store (``s3://bucket/key``), or to stdout for None and ``-``.

    A file appears by rename, an object by an upload at the end: nothing half-written stays behind.
    """
    if target is None or str(target) == "-":
        yield sys.stdout.buffer
        sys.stdout.buffer.flush()
    elif is_url(str(target)):
        with _open_object(str(target)) as stream:
            yield stream
    else:
        with _open_file(Path(target)) as stream:
            yield stream


@contextmanager
def _open_file(path: Path) -> Iterator[IO[bytes]]:
    if path.is_dir():
        raise UsageError(f"cannot write {path}: it is a folder")
    if path.exists() and not path.is_file():  # a device or a pipe is written to, and not replaced
        with io.BufferedWriter(FileOnDisk(os.open(path, os.O_WRONLY), path)) as stream:
            yield stream
        return
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    except OSError as exc:
        raise UsageError(f"cannot write {path}: {exc.strerror}") from None
    try:
        with io.BufferedWriter(FileOnDisk(handle, path)) as stream:
            os.fchmod(handle, 0o666 & ~_umask())
            yield stream
        os.replace(name, path)
    finally:
        with suppress(FileNotFoundError):  # there only where the block raised
            os.unlink(name)


@contextmanager
def _open_object(url: str) -> Iterator[IO[bytes]]:
    fs, path = file_system(url)
    with tempfile.NamedTemporaryFile(prefix="labelmill-") as stream:
        yield stream
        stream.flush()
        try:
            fs.put_file(stream.name, path)
        except store_errors() as exc:
            raise ServiceError(f"cannot write {url}: {exc or type(exc).__name__}") from None


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
