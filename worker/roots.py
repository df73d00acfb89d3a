"""Files under the folders that the operator opened to workers, and none outside them.

A file is found first, looked at next, and opened last: by then it is held by its descriptor (``O_PATH``), so nothing
that happens to its name in between (a symbolic link changed, a folder moved) can make it another file. Its real
place comes from the kernel (``/proc/self/fd``), not from reading the path again.

Images come by the folder. One that was looked at is held for a moment, and plain files are opened from there, which
costs half as much. Whatever is not plain, or not there, goes the long way, which says what it is.
"""

from __future__ import annotations

import errno
import os
import stat
import threading
import time
from collections.abc import Sequence
from pathlib import Path

from jobs.errors import (
    FetchFailedError,
    ForbiddenError,
    InvalidItemError,
    ItemError,
    NotFoundError,
    TooLargeError,
)

__all__ = ["Roots"]

OUTSIDE = "this path is not in a folder that workers may read (LABELMILL_FILE_ROOTS)"
#: Seconds that a folder is held: one that is moved out of the roots is read from for so long.
HELD_S = 1.0
#: A pipe or a terminal neither makes us wait nor becomes ours.
_PLAIN = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
#: What the kernel says of a name that leads nowhere.
_NOWHERE = frozenset({errno.ENOENT, errno.ENOTDIR, errno.ELOOP})


class Roots:
    """Reads files under ``roots``; a path outside says only ``forbidden``, never whether it exists."""

    def __init__(self, roots: Sequence[Path], *, max_bytes: int) -> None:
        self.max_bytes = max_bytes
        # as named, which a path must begin with, and as they really are, which a file must lie in
        self._named = tuple(_folder(os.path.abspath(root)) for root in roots)
        self._real = tuple(_folder(os.path.realpath(root)) for root in roots)
        self._local = threading.local()

    def read(self, path: str) -> bytes:
        """The bytes of a regular file.

        An absolute path must lead into a root; a relative one is looked for in each of them, in order. Raises
        :class:`~jobs.errors.ForbiddenError`, :class:`~jobs.errors.NotFoundError`,
        :class:`~jobs.errors.InvalidItemError` (a folder, a pipe), :class:`~jobs.errors.TooLargeError` or
        :class:`~jobs.errors.FetchFailedError`.
        """
        if path.startswith("/"):
            data = self._read_plain(path)
            return self._read_any(path) if data is None else data
        missing: ItemError = ForbiddenError(OUTSIDE)
        for root in self._named:
            try:
                return self.read(root + path)
            except NotFoundError as exc:
                missing = exc
        raise missing

    def _read_plain(self, path: str) -> bytes | None:
        """The bytes of a plain file in a folder that we hold; ``None`` leaves it to :meth:`_read_any`."""
        folder, _, name = path.rpartition("/")
        held: _Held | None = getattr(self._local, "held", None)
        if held is None or held.path != folder or held.until < time.monotonic():
            held = self._local.held = self._hold(folder)
        if held is None or name in ("", ".", ".."):
            return None
        try:
            file = os.open(name, _PLAIN, dir_fd=held.descriptor)
        except OSError:
            return None
        try:
            status = os.fstat(file)
            size = status.st_size
            if not stat.S_ISREG(status.st_mode) or size > self.max_bytes:
                return None
            data = os.read(file, size + 1)
            return data if len(data) == size else self._rest(file, data)
        except OSError:
            return None
        finally:
            os.close(file)

    def _hold(self, folder: str) -> _Held | None:
        if not (os.path.normpath(folder) + "/").startswith(self._named + self._real):
            return None
        try:
            held = _Held(folder)
            return held if (held.place() + "/").startswith(self._real) else None
        except (OSError, ValueError):  # ValueError: a NUL in the path
            return None

    def _read_any(self, path: str) -> bytes:
        if not (os.path.normpath(path) + "/").startswith(self._named + self._real):
            raise ForbiddenError(OUTSIDE)
        try:
            return self._read_held(path)
        except OSError as exc:
            raise self._item_error(exc, path) from exc

    def _read_held(self, path: str) -> bytes:
        held = os.open(path, os.O_PATH | os.O_CLOEXEC)
        try:
            link = f"/proc/self/fd/{held}"
            if not (os.readlink(link) + "/").startswith(self._real):
                raise ForbiddenError(OUTSIDE)
            status = os.fstat(held)
            if not stat.S_ISREG(status.st_mode):
                raise InvalidItemError("this is not a regular file")
            if status.st_size > self.max_bytes:
                raise TooLargeError(f"the file has {status.st_size} bytes; at most {self.max_bytes} are allowed")
            file = os.open(link, os.O_RDONLY | os.O_CLOEXEC)
            try:
                return self._rest(file, b"")
            finally:
                os.close(file)
        finally:
            os.close(held)

    def _rest(self, file: int, begin: bytes) -> bytes:
        """All of a file that is being written to, or is larger than one read gives."""
        whole = bytearray(begin)
        while len(whole) <= self.max_bytes:
            data = os.read(file, 1 << 20)
            if not data:
                return bytes(whole)
            whole += data
        raise TooLargeError(f"the file has more than {self.max_bytes} bytes")

    def _item_error(self, exc: OSError, path: str) -> ItemError:
        """What the sender may know: a link that leads outside tells nothing about what is there."""
        if not (os.path.realpath(path) + "/").startswith(self._real):
            return ForbiddenError(OUTSIDE)
        if exc.errno in _NOWHERE:
            return NotFoundError()
        if exc.errno in (errno.EACCES, errno.EPERM):
            return ForbiddenError("the worker has no permission to read this file")
        if exc.errno == errno.ENAMETOOLONG:
            return InvalidItemError("the path is too long")
        return FetchFailedError(f"the file could not be read: {os.strerror(exc.errno or 0)}")


class _Held:
    """A folder that is held by its descriptor, whatever becomes of its name."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.until = time.monotonic() + HELD_S
        self.descriptor = os.open(path, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)

    def place(self) -> str:
        """Where it really is."""
        return os.readlink(f"/proc/self/fd/{self.descriptor}")

    def __del__(self) -> None:
        if hasattr(self, "descriptor"):
            os.close(self.descriptor)


def _folder(path: str) -> str:
    return path.rstrip("/") + "/"
