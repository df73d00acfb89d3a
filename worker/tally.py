"""How much this worker computes: each process of its pool notes it in memory that the main process reads.

It costs a chunk one write of 16 bytes, with or without metrics, and is what ``labelmill workers`` shows.
"""

from __future__ import annotations

import mmap
import struct
import threading
import time
from collections import deque

__all__ = ["Pace", "Tally"]

#: One process's slot: images computed, and when the last of them were, in seconds since the epoch.
SLOT = struct.Struct("=Qd")
#: Processes of one pool at most; those beyond are not counted.
MOST_PROCESSES = 1024
#: Seconds over which the rate of now is taken.
RATE_S = 10.0


class Tally:
    """One place for each process of a pool, by its number in the pool; made before the processes are."""

    def __init__(self) -> None:
        self._memory = mmap.mmap(-1, SLOT.size * MOST_PROCESSES)
        self._lock = threading.Lock()  # of the threads of one process; no two processes have one number

    def add(self, number: int, images: int) -> None:
        """Process ``number`` computed so many images just now; one that replaced another goes on with its count."""
        if number < MOST_PROCESSES:
            with self._lock:
                before, _ = SLOT.unpack_from(self._memory, number * SLOT.size)
                SLOT.pack_into(self._memory, number * SLOT.size, before + images, time.time())

    def read(self) -> tuple[int, float]:
        """Images of all processes, and when the last of them were computed (seconds since the epoch, 0: never)."""
        slots = list(SLOT.iter_unpack(self._memory[:]))
        return sum(images for images, _ in slots), max(last for _, last in slots)


class Pace:
    """Images a second over the last :data:`RATE_S`, from counts that only grow."""

    def __init__(self) -> None:
        self._seen: deque[tuple[float, int]] = deque()

    def __call__(self, images: int, now: float) -> float:
        """The rate of now, 0 at the first look; ``now`` in seconds of a clock that only grows."""
        self._seen.append((now, images))
        while len(self._seen) > 2 and self._seen[1][0] <= now - RATE_S:
            self._seen.popleft()
        began, before = self._seen[0]
        return (images - before) / (now - began) if now > began else 0.0
