"""What is compiled of decoding, from ``worker/*.c``, where it was built and can be run.

Installing builds it where there is a C compiler. Without it NumPy resizes in three times the time, see
:mod:`worker.resample`; libjpeg-turbo reads a JPEG at an eighth of its size in four times the time, and Pillow a plain
PNG in one and a half to four times.
"""

from __future__ import annotations

import ctypes
import logging
from dataclasses import dataclass
from functools import cache, cached_property
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from worker.picture import Box, Pixels
from worker.rooms import room

__all__ = ["Kernel", "Taps", "built", "kernel"]

log = logging.getLogger(__name__)

#: Rows that are computed at once.
LANES = 16
#: Bytes of a row up to which sixteen of them stay in a core's cache.
MOST_ROW = 1 << 17
#: Bytes that a thread keeps for reading at an eighth; it never touches most of them, so that they are not resident.
MOST_EIGHTH = 1 << 26
#: Rows of a PNG, and bytes of one, that C can count.
MOST_PNG = (1 << 31) - 2


class _CAxis(ctypes.Structure):
    _fields_ = (
        ("length", ctypes.c_int32),
        ("taps", ctypes.c_int32),
        ("first", ctypes.c_void_p),
        ("weights", ctypes.c_void_p),
    )


@dataclass(frozen=True, eq=False)
class Taps:
    """What each pixel along an axis of the result is made of: ``weights``: int32[length, taps] in 22 bits.

    They belong to the pixels of the source from ``first`` on, int32[length], counted from ``start``. No pixel is read
    before ``start`` or from ``stop`` on.
    """

    start: int
    stop: int
    first: NDArray[np.int32]
    weights: NDArray[np.int32]

    @cached_property
    def of_c(self) -> _CAxis:
        """The same for C; lives as long as this."""
        assert self.first.flags.c_contiguous
        assert self.weights.flags.c_contiguous
        return _CAxis(*self.weights.shape, self.first.ctypes.data, self.weights.ctypes.data)

    def __len__(self) -> int:
        return len(self.first)


class Kernel:
    """Resizes pixels, and reads JPEGs at an eighth and PNGs: Pillow's very pixels. Other threads run meanwhile."""

    def __init__(self, library: ctypes.CDLL) -> None:
        self._across, self._down = library.labelmill_across, library.labelmill_down
        pointer, size, number = ctypes.c_void_p, ctypes.c_ssize_t, ctypes.c_int32
        axis = ctypes.POINTER(_CAxis)
        self._across.argtypes = (pointer, size, number, number, number, axis, pointer, size, pointer)
        self._down.argtypes = (pointer, size, number, axis, pointer, size)
        self._across.restype = self._down.restype = None
        self._eighth, self._eighth_memory = library.labelmill_eighth, library.labelmill_eighth_memory
        self._eighth.argtypes = (ctypes.c_char_p, size, *7 * (number,), pointer, pointer)
        self._eighth_memory.argtypes, self._eighth_memory.restype = (size, number, number, number), size
        self._unfilter = library.labelmill_unfilter
        self._unfilter.argtypes = (ctypes.c_char_p, number, number, number, pointer)

    def resample(self, source: Pixels, across: Taps, down: Taps, *, is_down_first: bool) -> Pixels:
        """The result, uint8[len(down), len(across), channels], of the part of the source that it needs.

        ``source``: uint8[down.stop - down.start, across.stop - across.start, 3 or 1].
        """
        height, width, channels = source.shape
        if (height, width) != (down.stop - down.start, across.stop - across.start) or channels not in (1, 3):
            raise ValueError(f"a part of {width} x {height} pixels with {channels} channels")
        if source.strides[1:] != (channels, 1):
            source = np.ascontiguousarray(source)
        result = np.empty((len(down), len(across), channels), np.uint8)
        if is_down_first:
            middle = room("lines", len(down), width, channels, dtype=np.uint8)
            self._pass_down(source, down, middle)
            self._pass_across(middle, across, result)
        else:
            middle = room("lines", height, len(across), channels, dtype=np.uint8)
            self._pass_across(source, across, middle)
            self._pass_down(middle, down, result)
        return result

    def eighth(self, data: bytes, width: int, height: int, channels: int, wanted: Box | None = None) -> Pixels | None:
        """A JPEG of ``width`` x ``height`` pixels at an eighth: uint8[height / 8, width / 8, channels], rounded up.

        ``wanted`` is a part of the result, in its pixels; what is outside may hold anything.
        ``None``: it is not a sound baseline file of this size, in YCbCr or grey, with chrominance of the whole or half
        the size.
        """
        across, down = -(-width // 8), -(-height // 8)
        left, top, right, bottom = box = wanted or (0, 0, across, down)
        if not (0 <= left < right <= across and 0 <= top < bottom <= down):
            raise ValueError(f"the part {box} of {across} x {down} pixels")
        result = np.empty((down, across, channels), np.uint8)
        size = self._eighth_memory(len(data), width, height, channels)
        memory = room("eighth", size, dtype=np.uint8, kept=MOST_EIGHTH)
        goal, room_for = result.ctypes.data, memory.ctypes.data
        is_read = self._eighth(data, len(data), width, height, channels, *box, goal, room_for)
        return result if is_read else None

    def unfilter(self, rows: bytes, result: Pixels, first: int = 0) -> bool:
        """Restore inflated rows of a PNG, a byte for the filter before each, into ``result`` behind its row ``first``.

        ``result``: uint8[height + 1, width, 1, 3 or 4], its first row zeros, the others restored up to ``first``.
        False, with nothing done: a row's filter is none that there is, or there are too many rows, or too long ones.
        """
        height, width, channels = result.shape
        count, rest = divmod(len(rows), 1 + width * channels)
        if rest or not 0 <= first <= height - 1 - count or channels not in (1, 3, 4) or not result.flags.c_contiguous:
            raise ValueError(f"{len(rows)} bytes for {width} x {height} pixels with {channels} channels")
        if max(width * channels, height - 1) >= MOST_PNG:
            return False
        return bool(self._unfilter(rows, count, width * channels, channels, result[first:].ctypes.data))

    def _pass_across(self, source: Pixels, taps: Taps, result: Pixels) -> None:
        rows, width, channels = source.shape
        scratch = room("scratch", LANES * ((width + len(taps)) * channels + LANES), dtype=np.uint8)
        self._across(
            source.ctypes.data,
            source.strides[0],
            rows,
            width * channels,
            channels,
            taps.of_c,
            result.ctypes.data,
            result.strides[0],
            scratch.ctypes.data,
        )

    def _pass_down(self, source: Pixels, taps: Taps, result: Pixels) -> None:
        row = source.shape[1] * source.shape[2]
        self._down(source.ctypes.data, source.strides[0], row, taps.of_c, result.ctypes.data, result.strides[0])


@cache
def kernel() -> Kernel | None:
    """The one of this process; None where it was not built, or the processor cannot run it."""
    path = built()
    if path is None:
        return None
    try:
        library = ctypes.CDLL(str(path))
        return Kernel(library) if library.labelmill_is_usable() else None
    except OSError as exc:  # of another machine, or where nothing may be run from
        log.warning("the compiled half of decoding cannot be loaded: %s", exc)
    except AttributeError as exc:
        log.warning("the compiled half of decoding is of another version, and not used: install again (%s)", exc)
    return None


def built() -> Path | None:
    """What was made of the files in C."""
    paths = (Path(__file__).with_name(f"_kernels{suffix}") for suffix in EXTENSION_SUFFIXES)
    return next((path for path in paths if path.exists()), None)
