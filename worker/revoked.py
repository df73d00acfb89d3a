"""Revoked calls, known to every process of a worker.

Celery tells its main process which ids are revoked; calls that are taken along never pass it. So it sets a bit for each
id in memory that it shares with the processes of its pool. An id whose bit is set is left to the main process, which
knows for certain.
"""

from __future__ import annotations

import mmap
import zlib
from typing import Any

__all__ = ["Revoked", "revoked"]

#: Bits of the table; with the 50,000 ids that Celery remembers, one call in twenty takes the long way for nothing.
BITS = 1 << 20


class Revoked:
    """A table of bits; made before the pool's processes are."""

    def __init__(self) -> None:
        self._memory = mmap.mmap(-1, BITS // 8)

    def add(self, task_id: str) -> None:
        """This id is revoked."""
        byte, bit = _place(task_id)
        self._memory[byte] |= bit

    def __contains__(self, task_id: str) -> bool:
        """Whether it may be revoked."""
        byte, bit = _place(task_id)
        return bool(self._memory[byte] & bit)

    def follow(self, ids: Any) -> None:
        """Be told of all that is in Celery's own set of ids, and of all that comes into it."""
        add = ids.add

        def add_and_tell(item: Any, now: float | None = None) -> None:
            self.add(str(item))
            add(item, now)

        ids.add = add_and_tell
        for item in ids:
            self.add(str(item))


class _Table:
    """The one of this worker."""

    revoked: Revoked | None = None


def revoked() -> Revoked:
    """The table of this worker: its main process asks for it first, before it has a pool."""
    if _Table.revoked is None:
        _Table.revoked = Revoked()
    return _Table.revoked


def _place(task_id: str) -> tuple[int, int]:
    number = zlib.crc32(task_id.encode(errors="replace")) % BITS
    return number >> 3, 1 << (number & 7)
