"""Ways to damage a file. A case is made from its seed, format and number alone, so that it can be made again."""

from __future__ import annotations

import random
import zlib
from collections.abc import Callable

from tests.fuzz.seeds import FORMATS, sound_files

__all__ = ["damaged"]

#: Numbers at which sizes, counts and offsets go wrong.
_ODD = (0, 1, 0x7F, 0x80, 0xFF, 0x100, 0x7FFF, 0x8000, 0xFFFF, 0x10000, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFE, 0xFFFFFFFF)
#: Where headers are: most damage goes there, for in the pixels it changes pixels only.
_HEADER_BYTES = 200

_Mutation = Callable[[random.Random, bytearray, str], None]


def damaged(seed: int, kind: str, number: int) -> bytes:
    """The bytes of one case."""
    rng = random.Random(f"{seed}/{kind}/{number}")
    data = bytearray(rng.choice(sound_files(kind)))
    for _ in range(rng.choice((1, 1, 1, 2, 3, 6))):
        rng.choice(_MUTATIONS)(rng, data, kind)
    if kind == "png" and rng.random() < 0.7:
        _mend_checksums(data)  # else the first wrong byte ends it
    return bytes(data)


def _place(rng: random.Random, data: bytearray) -> int:
    end = len(data) if rng.random() < 0.3 else min(len(data), _HEADER_BYTES)
    return rng.randrange(end) if end else 0


def _flip(rng: random.Random, data: bytearray, _kind: str) -> None:
    for _ in range(rng.randint(1, 8)):
        if data:
            data[_place(rng, data)] ^= 1 << rng.randrange(8)


def _overwrite(rng: random.Random, data: bytearray, _kind: str) -> None:
    at, size = _place(rng, data), rng.randint(1, 16)
    data[at : at + size] = rng.randbytes(size)


def _odd_number(rng: random.Random, data: bytearray, _kind: str) -> None:
    at, size = _place(rng, data), rng.choice((1, 2, 4, 4))
    number = rng.choice(_ODD) & (1 << 8 * size) - 1
    data[at : at + size] = number.to_bytes(size, rng.choice(("big", "little")))


def _cut(rng: random.Random, data: bytearray, _kind: str) -> None:
    del data[rng.randrange(len(data) + 1) :]


def _take_out(rng: random.Random, data: bytearray, _kind: str) -> None:
    at = _place(rng, data)
    del data[at : at + rng.randint(1, 64)]


def _repeat(rng: random.Random, data: bytearray, _kind: str) -> None:
    at, size = _place(rng, data), rng.randint(1, 256)
    data[at:at] = data[at : at + size] * rng.choice((1, 2, 40))


def _zeros(rng: random.Random, data: bytearray, _kind: str) -> None:
    at, size = _place(rng, data), rng.randint(1, 128)
    data[at : at + size] = bytes(size)


def _splice(rng: random.Random, data: bytearray, kind: str) -> None:
    other = rng.choice(sound_files(kind if rng.random() < 0.7 else rng.choice(FORMATS)))
    at = rng.randrange(len(other))
    data[rng.randrange(len(data) + 1) :] = other[at:]


def _mend_checksums(data: bytearray) -> None:
    at = 8
    while at + 12 <= len(data):
        end = at + 8 + int.from_bytes(data[at : at + 4], "big")
        if end + 4 > len(data):
            return
        data[end : end + 4] = zlib.crc32(data[at + 4 : end]).to_bytes(4, "big")
        at = end + 4


_MUTATIONS: tuple[_Mutation, ...] = (
    *(_flip, _overwrite, _odd_number, _odd_number, _cut, _take_out, _repeat, _zeros, _splice),
)
