"""Cutting: images become chunks, all alike but for the last ones, which are smaller, so that no process waits long."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from itertools import islice

from jobs.errors import UsageError
from jobs.items import Item
from producer.sources import Picture, Upload

__all__ = ["Chunk", "Measure", "check_size", "cut", "together"]

#: Seconds between two looks at how fast the workers are.
RESIZE_S = 2.0
#: Bytes of uploaded images in one chunk; one image may be larger.
CHUNK_BYTES = 4 << 20
#: What is left of a job when its end comes in sight is cut into so many chunks for each process, again and again: the
#: last ones are small, so all processes end at nearly the same time (guided self-scheduling, Polychronopoulos 1987).
SHARES = 2
#: What costs the books of a chunk as much as its images is no chunk: the smallest one, as a share of a whole one.
LEAST = 8
#: The end comes in sight so far ahead: images at the most, and seconds that a source may take to give them.
AHEAD, AHEAD_S = 10_000, 0.02


def check_size(chunk_size: int | None) -> int | None:
    """Itself; raises :class:`~jobs.errors.UsageError` where no chunk can have so many items."""
    if chunk_size is not None and (isinstance(chunk_size, bool) or not isinstance(chunk_size, int) or chunk_size < 1):
        raise UsageError(f"chunk_size must be a whole number above 0, not {str(chunk_size)[:80]!a}")
    return chunk_size


@dataclass(frozen=True)
class Measure:
    """Items of a chunk, and how many processes take chunks; without any, the last ones are as large as all others."""

    size: int
    processes: int = 0


@dataclass
class Chunk:
    """Items that go together, see :func:`~jobs.items.encode_chunk`, and the bytes that they need."""

    items: list[Item | str] = field(default_factory=list)
    blobs: dict[str, bytes] = field(default_factory=dict)
    size: int = 0

    def add(self, upload: Upload) -> None:
        """Put an image in, and its bytes unless they are there."""
        digest = hashlib.sha256(upload.data).hexdigest()
        if digest not in self.blobs:
            self.blobs[digest] = upload.data
            self.size += len(upload.data)
        self.items.append(Item(upload.custom_id, f"blob:{digest}", upload.fields))


def cut(pictures: Iterable[Picture | str], measure: Callable[[], Measure]) -> Iterator[Chunk]:
    """The chunks of some images, lazily; ``measure`` is asked every :data:`RESIZE_S`."""
    ahead = _Ahead(iter(pictures))
    now, until = measure(), time.monotonic() + RESIZE_S
    while ahead.fill(now):
        yield ahead.take(now)
        if time.monotonic() >= until:
            now, until = measure(), time.monotonic() + RESIZE_S


def together(chunks: Iterable[Chunk], room: Callable[[], int], *, most: int) -> Iterator[list[Chunk]]:
    """The same, in groups of 1, 2, 4 and so on, ``most`` in the end, lazily: the first is not to wait for others.

    A group ends with more items than ``room()``, with :data:`CHUNK_BYTES`, with the first chunk after :data:`AHEAD_S`,
    and before an error.
    """
    allowed = 1
    rest = iter(chunks)
    while True:
        group: list[Chunk] = []
        items = size = 0
        until, left = time.monotonic() + AHEAD_S, room()
        try:
            for chunk in islice(rest, allowed):
                group.append(chunk)
                items, size = items + len(chunk.items), size + chunk.size
                if items > left or size >= CHUNK_BYTES or time.monotonic() >= until:
                    break
        except Exception:
            if group:
                yield group
            raise
        if not group:
            return
        yield group
        allowed = min(2 * allowed, most)


class _Ahead:
    """Images that were read and not cut yet."""

    def __init__(self, pictures: Iterator[Picture | str]) -> None:
        self._pictures = pictures
        self._read: list[Picture | str] = []
        self._bytes = 0
        self._is_all = False

    def fill(self, measure: Measure) -> bool:
        """Read as many as a chunk takes, and more of a source that is fast; False where nothing is left."""
        until = time.monotonic() + AHEAD_S
        wanted = min(AHEAD, measure.size * SHARES * measure.processes)
        while not self._is_all and self._bytes < CHUNK_BYTES:
            there = len(self._read)
            if there >= measure.size and (there >= wanted or time.monotonic() >= until):
                break
            for picture in islice(self._pictures, measure.size):
                self._read.append(picture)
                if isinstance(picture, Upload):
                    self._bytes += len(picture.data)
                    if self._bytes >= CHUNK_BYTES:
                        break
            self._is_all = len(self._read) == there
        return bool(self._read)

    def take(self, measure: Measure) -> Chunk:
        """The next chunk."""
        count = measure.size
        if self._is_all and measure.processes:
            share = -(-len(self._read) // (SHARES * measure.processes))
            count = min(count, max(share, measure.size // LEAST, 1))
        chunk = Chunk()
        for picture in self._read[:count]:
            if not isinstance(picture, Upload):
                chunk.items.append(picture)
                continue
            chunk.add(picture)
            self._bytes -= len(picture.data)
            if chunk.size >= CHUNK_BYTES:
                break
        del self._read[: len(chunk.items)]
        return chunk
