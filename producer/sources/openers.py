"""How a file is opened, wherever it is: on disk, or in an object store."""

from __future__ import annotations

import io
import os
import sys
import tempfile
import weakref
from collections.abc import Callable
from typing import IO, Any, cast

from jobs.errors import SourceError, UsageError

__all__ = ["Opener", "Spooled", "file_system", "is_url", "opener", "scratch", "store_errors", "suffixes"]

#: Opens a file for reading, from its beginning each time.
Opener = Callable[[], IO[bytes]]

#: Bytes copied at a time when a stream is put on disk.
BLOCK_BYTES = 1 << 20


def is_url(name: str) -> bool:
    """True for ``scheme://...``."""
    scheme, sep, _ = name.partition("://")
    return bool(sep) and scheme.isascii() and scheme.replace("+", "").isalnum()


def opener(name: str) -> Opener:
    """Opens a path or a URL. Raises :class:`SourceError` where it cannot be read."""
    return (lambda: _open_url(name)) if is_url(name) else (lambda: _open_path(name))


def file_system(url: str) -> tuple[Any, str]:
    """The fsspec file system of a URL, and the path in it. Raises :class:`UsageError` that says what to install."""
    try:
        import fsspec

        return cast("tuple[Any, str]", fsspec.core.url_to_fs(url))
    except ImportError as exc:
        scheme = url.partition(":")[0]
        raise UsageError(f"{scheme}:// needs a package that is not there ({exc}); for s3: labelmill[s3]") from None
    except ValueError as exc:
        raise UsageError(f"{url}: {exc}") from None
    except OSError as exc:  # some connect at once
        raise SourceError(f"cannot read {url}: {exc.strerror or exc}") from None


def store_errors() -> tuple[type[Exception], ...]:
    """What a file system raises that cannot read; S3's client has errors of its own."""
    botocore = sys.modules.get("botocore.exceptions")
    return (OSError, ValueError, *((botocore.BotoCoreError,) if botocore else ()))


def scratch(owner: object) -> IO[bytes]:
    """A file without a name for as long as its owner lives; the owner must not be held by it."""
    file = tempfile.TemporaryFile(prefix="labelmill-")  # noqa: SIM115 - closed with its owner
    weakref.finalize(owner, file.close)
    return cast("IO[bytes]", file)


class Spooled:
    """A stream that can be read only once, put on disk; a call opens what was read, one reader at a time."""

    def __init__(self, stream: IO[bytes]) -> None:
        self._kept = scratch(self)
        while block := stream.read(BLOCK_BYTES):
            self._kept.write(block)
        self._kept.flush()

    def __call__(self) -> IO[bytes]:
        again = os.fdopen(os.dup(self._kept.fileno()), "rb")  # with the same offset
        again.seek(0)
        return again


def suffixes(name: str) -> str:
    """The last two suffixes of a name, in lower case: ``.tar.gz``, ``.csv``."""
    last = name.partition("?")[0].rstrip("/").rpartition("/")[2].lstrip(".").lower()
    return "".join(f".{suffix}" for suffix in last.split(".")[1:][-2:])


def _open_path(path: str) -> IO[bytes]:
    try:
        return open(path, "rb")
    except OSError as exc:
        raise SourceError(f"cannot read {path}: {exc.strerror}") from None


def _open_url(url: str) -> IO[bytes]:
    fs, path = file_system(url)
    try:
        return io.BufferedReader(fs.open(path, "rb"))  # fsspec's own reads no lines of limited length
    except store_errors() as exc:
        raise SourceError(f"cannot read {url}: {exc}") from None
