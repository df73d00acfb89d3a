"""Resize and crop in one step: only what the crop needs is computed.

The geometry is that of torchvision's ``Resize`` and ``CenterCrop`` on a PIL image. The filters, their weights in 22
bits, the order of the two passes and the rounding to 8 bits between them are those of Pillow 13's ``resize``
(``src/libImaging/Resample.c``). Compiled (:mod:`worker.kernels`), every pixel is the very same. Without, the sums are
products of matrices, whose pixels are within 1 grey level of Pillow's, and nearly all the same: see :func:`_doubled`.

Pillow takes one pixel after the other. A product of matrices does the same sums several times as fast, though it
multiplies by many zeros: a *band* of neighbouring pixels of the result, and of the source that they come from, at once.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from functools import cache, lru_cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from threadpoolctl import threadpool_limits

from jobs.errors import TooLargeError
from worker.kernels import MOST_ROW, Kernel, Taps, kernel
from worker.models.card import Interpolation, Preprocessing
from worker.picture import Box, Picture, Pixels, channels_of, cut, pixels_of, planes, size_of
from worker.rooms import room

__all__ = ["fill", "reach", "resized_size"]

#: Bits of a weight in Pillow.
PRECISION_BITS = 22
#: Pixels of the result in a band at the least and at the most, and pixels of the source that more than those stand for.
LEAST_BAND, BAND, BAND_SOURCE = 4, 16, 48
#: Weights of an axis up to which they are made at once, and kept for the next image of this size.
WEIGHTS = 1 << 16
#: Weights of an axis that are computed at the most; more are those of a line of millions of pixels.
MOST_WEIGHTS = 1 << 24
#: Pixels of an axis up to which it is looked for what of them counts.
MOST_REACHED = 1 << 12
#: Axes whose weights are kept: 25 kB for 500 pixels, 110 kB for 4,000, and 700 kB at the most.
KEPT_AXES = 32
#: Values that are taken from the source at once in float32: about what a core's cache holds.
STRIP = 1 << 19
#: What a product and its addition to a sum of grey levels may be off by in float32, and the most that is allowed for.
ROUNDING, MOST_DOUBT = 2.0**-15, 0.25
#: Pixels of a resized picture up to which ``nearest`` makes all of it, for the sake of the very same pixels.
WHOLE_PIXELS = 1 << 24

_Floats = NDArray[np.float32]


class _Axis(NamedTuple):
    """Pixels ``start`` to ``start + length`` of an axis of ``source`` pixels that is resized to ``resized``.

    They go to ``offset`` of the result.
    """

    source: int
    resized: int
    start: int
    length: int
    offset: int

    @property
    def scale(self) -> float:
        return self.source / self.resized


class _Band(NamedTuple):
    """Pixels ``start`` to ``stop`` of the result are those ``first`` to ``last`` of the source, times ``weights``.

    ``weights``: float32[last - first, stop - start].
    """

    first: int
    last: int
    start: int
    stop: int
    weights: _Floats


class _Filter(NamedTuple):
    """``reach`` to either side, in pixels of the coarser of source and result, and the ``curve`` of the weights."""

    reach: float
    curve: Callable[[NDArray[np.float64]], NDArray[np.float64]]


def _triangle(x: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.maximum(1.0 - np.abs(x), 0.0)


def _cubic(x: NDArray[np.float64]) -> NDArray[np.float64]:
    x, a = np.abs(x), -0.5
    near = ((a + 2.0) * x - (a + 3.0)) * x * x + 1
    far = (((x - 5) * x + 8) * x - 4) * a
    return np.where(x < 1.0, near, np.where(x < 2.0, far, 0.0))


def _lanczos(x: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.where(np.abs(x) < 3.0, np.sinc(x) * np.sinc(x / 3.0), 0.0)


_FILTERS = {"bilinear": _Filter(1.0, _triangle), "bicubic": _Filter(2.0, _cubic), "lanczos": _Filter(3.0, _lanczos)}


def resized_size(width: int, height: int, resize: int | tuple[int, int] | None) -> tuple[int, int]:
    """``(width, height)`` after torchvision's ``Resize``, which cuts the long side's fraction off."""
    if resize is None:
        return width, height
    if isinstance(resize, tuple):
        return resize[1], resize[0]
    if width <= height:
        return resize, int(resize * height / width)
    return int(resize * width / height), resize


def fill(picture: Picture, resized: tuple[int, int], preprocessing: Preprocessing, out: Pixels) -> None:
    """The centre of a picture, as if it had been resized to ``resized``, into ``out``; black around it."""
    is_bgr = preprocessing.color_order == "BGR"
    source, (height, width) = size_of(picture), out.shape[:2]
    if resized == source == (width, height):
        return _write(picture, out, is_bgr=is_bgr)
    across = _axis(source[0], resized[0], width)
    down = _axis(source[1], resized[1], height)
    if (across.length, down.length) != (width, height):
        out[...] = 0
        out = out[down.offset : down.offset + down.length, across.offset : across.offset + across.length]
    if resized == source:
        return _write(cut(picture, _box(across, down)), out, is_bgr=is_bgr)
    if preprocessing.interpolation == "nearest":
        return _write(_nearest(picture, resized, across, down), out, is_bgr=is_bgr)
    if max(_taps_of(axis, preprocessing.interpolation) * axis.length for axis in (across, down)) > MOST_WEIGHTS:
        raise TooLargeError(f"an image of {across.source} x {down.source} pixels is too long to be resized")
    compiled = kernel()
    if compiled is not None and _is_for_kernel(picture, across, down, preprocessing.interpolation):
        return _write(_compiled(compiled, picture, across, down, preprocessing.interpolation), out, is_bgr=is_bgr)
    found = _resample(picture, across, down, preprocessing.interpolation)
    for channel in range(3):
        out[:, :, 2 - channel if is_bgr else channel] = found[channel % len(found)]


def reach(source: tuple[int, int], resized: tuple[int, int], preprocessing: Preprocessing) -> Box:
    """The part of a picture of a size, ``(width, height)``, that :func:`fill` looks at."""
    height, width = preprocessing.size
    across, down = _axis(source[0], resized[0], width), _axis(source[1], resized[1], height)
    if resized == source:
        return _box(across, down)
    if preprocessing.interpolation == "nearest" or max(across.source, down.source) > MOST_REACHED:
        return 0, 0, *source
    columns, rows = (_kept_taps(axis, preprocessing.interpolation) for axis in (across, down))
    return columns.start, rows.start, columns.stop, rows.stop


def _axis(source: int, resized: int, crop: int) -> _Axis:
    """A central crop of an axis; one larger than the picture leaves a border, as torchvision's does."""
    if crop >= resized:
        return _Axis(source, resized, 0, resized, (crop - resized) // 2)
    return _Axis(source, resized, round((resized - crop) / 2.0), crop, 0)


def _box(across: _Axis, down: _Axis) -> Box:
    return across.start, down.start, across.start + across.length, down.start + down.length


def _write(picture: Picture, out: Pixels, *, is_bgr: bool) -> None:
    pixels = pixels_of(picture)
    if pixels.shape[2] == 1:  # one by one: NumPy takes four times as long to repeat grey in each pixel
        for channel in range(3):
            out[:, :, channel] = pixels[:, :, 0]
    else:
        out[...] = pixels[:, :, ::-1] if is_bgr else pixels


def _nearest(picture: Picture, resized: tuple[int, int], across: _Axis, down: _Axis) -> Image.Image:
    """Pillow's own: it adds one step to the other, and which pixel is nearest can depend on how that rounds."""
    image = (
        picture
        if isinstance(picture, Image.Image)
        else Image.fromarray(picture.squeeze(2) if channels_of(picture) == 1 else picture)
    )
    if resized[0] * resized[1] <= WHOLE_PIXELS:
        return image.resize(resized, Image.Resampling.NEAREST).crop(_box(across, down))
    (left, begin, end, right), (top, first, last, bottom) = (_source(axis) for axis in (across, down))
    box = (begin - left, first - top, end - left, last - top)
    part = image.crop((left, top, right, bottom))
    return part.resize((across.length, down.length), Image.Resampling.NEAREST, box=box)


def _source(axis: _Axis) -> tuple[int, float, float, int]:
    """Where an axis' pixels come from, and the whole pixels around that."""
    begin, end = axis.start * axis.scale, (axis.start + axis.length) * axis.scale
    return int(begin), begin, end, min(math.ceil(end), axis.source)


def _is_for_kernel(picture: Picture, across: _Axis, down: _Axis, interpolation: Interpolation) -> bool:
    """Whether it takes no more memory than a core's cache holds: all but lines of tens of thousands of pixels."""
    weights = max(_taps_of(axis, interpolation) * axis.length for axis in (across, down))
    return weights <= WEIGHTS and across.source * channels_of(picture) <= MOST_ROW


def _compiled(compiled: Kernel, picture: Picture, across: _Axis, down: _Axis, interpolation: Interpolation) -> Pixels:
    """uint8[height, width, 3 or 1]."""
    columns, rows = _kept_taps(across, interpolation), _kept_taps(down, interpolation)
    part = pixels_of(cut(picture, (columns.start, rows.start, columns.stop, rows.stop)))
    return compiled.resample(part, columns, rows, is_down_first=_is_down_first(across, down))


@lru_cache(maxsize=KEPT_AXES)
def _kept_taps(axis: _Axis, interpolation: Interpolation) -> Taps:
    firsts, _, weights = _weights(axis, interpolation)
    # as many taps are read for each pixel: where they would end behind the source, they begin before their first one
    begins = np.minimum(firsts, axis.source - weights.shape[1])
    places = np.arange(weights.shape[1]) - (firsts - begins)[:, None]
    moved = np.where(places >= 0, np.take_along_axis(weights, np.maximum(places, 0), axis=1), 0.0)
    start, stop = int(begins.min()), int(begins.max()) + weights.shape[1]
    exact = np.rint(moved * (1 << PRECISION_BITS)).astype(np.int32)
    return Taps(start, stop, (begins - start).astype(np.int32), np.ascontiguousarray(exact))


def _resample(picture: Picture, across: _Axis, down: _Axis, interpolation: Interpolation) -> list[_Floats]:
    """A float32[height, width] for each channel, whose fractions are to be cut off."""
    _one_thread()
    resample = _down_then_across if _is_down_first(across, down) else _across_then_down
    result = _whole(resample(picture, across, down, interpolation)).reshape(down.length, -1, across.length)
    return [result[:, channel] for channel in range(result.shape[1])]


def _is_down_first(across: _Axis, down: _Axis) -> bool:
    """The order of Pillow's passes, which must be ours: it rounds and clips to 8 bits between them.

    In the other one, up to 2 grey levels differ with ``bilinear``, up to 60 with ``lanczos``.
    """
    return down.source - down.resized > max(0, 2 * (across.source - across.resized))


def _across_then_down(picture: Picture, across: _Axis, down: _Axis, interpolation: Interpolation) -> _Floats:
    channels = channels_of(picture)
    top, bottom = _reached(down, interpolation)
    middle = room("middle", bottom - top, channels, across.length)
    for bands in _parts(across, interpolation):
        left, right = bands[0].first, bands[-1].last
        step = max(1, STRIP // (channels * (right - left)))
        for row in range(top, bottom, step):
            source = _floats(picture, (left, row, right, min(row + step, bottom)))
            goal = middle[row - top : row - top + step].reshape(-1, across.length)
            for first, last, start, stop, weights in bands:
                np.matmul(source[:, first - left : last - left], weights, out=goal[:, start:stop])
            _doubled(goal[:, bands[0].start : bands[-1].stop], _doubt(across, interpolation))
    lines = middle.reshape(len(middle), -1)
    result = room("result", down.length, lines.shape[1])
    for bands in _parts(down, interpolation):
        for first, last, start, stop, weights in bands:
            np.matmul(weights.T, lines[first - top : last - top], out=result[start:stop])
    return result


def _down_then_across(picture: Picture, across: _Axis, down: _Axis, interpolation: Interpolation) -> _Floats:
    channels = channels_of(picture)
    left, right = _reached(across, interpolation)
    middle = room("middle", down.length, channels * (right - left))
    for bands in _parts(down, interpolation):
        for first, last, start, stop, weights in bands:
            source = _floats(picture, (left, first, right, last)).reshape(last - first, -1)
            np.matmul(weights.T, source, out=middle[start:stop])
    lines = _doubled(middle, _doubt(down, interpolation)).reshape(-1, right - left)
    result = room("result", len(lines), across.length)
    for bands in _parts(across, interpolation):
        for first, last, start, stop, weights in bands:
            np.matmul(lines[:, first - left : last - left], weights, out=result[:, start:stop])
    return result


def _doubt(axis: _Axis, interpolation: Interpolation) -> float:
    """What a sum along an axis may be off by, in grey levels. Beyond thousands of pixels for one it is no bound."""
    return min(_taps_of(axis, interpolation) * ROUNDING, MOST_DOUBT)


def _doubled(values: _Floats, doubt: float) -> _Floats:
    """Twice the values, rounded to 0..255 as Pillow does between its passes; in place.

    Pillow's sums are of integers and exact. Where one lies so near to a half that float32 cannot tell which way Pillow
    rounds, the half itself goes on, which is 1/2 from either. So what comes out of the second pass differs from
    Pillow's by half the sum of the weights' amounts, less than 1, and by 1 grey level at most when it is rounded.
    """
    np.clip(values, 0.0, 255.0, out=values)
    values += 0.5 - doubt
    above = np.add(values, 2 * doubt, out=room("above", *values.shape))
    np.floor(values, out=values)
    np.floor(above, out=above)
    values += above
    return values


def _whole(values: _Floats) -> _Floats:
    """Half the values, such that cutting off their fractions rounds them to 0..255; in place."""
    values *= 0.5
    values += 0.5
    return np.clip(values, 0.0, 255.5, out=values)


def _floats(picture: Picture, box: Box) -> _Floats:
    """A part of a picture as float32[height x channels, width], the channels of a row below each other."""
    part = planes(picture, box)
    floats = room("source", box[3] - box[1], len(part), box[2] - box[0])
    for channel, plane in enumerate(part):
        floats[:, channel] = plane
    return floats.reshape(-1, floats.shape[2])


def _parts(axis: _Axis, interpolation: Interpolation) -> Iterator[tuple[_Band, ...]]:
    """The bands of an axis, all of them at once unless they take much memory, as those of a line of pixels do."""
    step = max(1, WEIGHTS // _taps_of(axis, interpolation))
    if axis.length <= step:
        yield _kept_bands(axis, interpolation)
        return
    for start in range(0, axis.length, step):
        length = min(step, axis.length - start)
        yield tuple(_bands(axis._replace(start=axis.start + start, length=length), interpolation, start))


@lru_cache(maxsize=KEPT_AXES)
def _kept_bands(axis: _Axis, interpolation: Interpolation) -> tuple[_Band, ...]:
    return tuple(_bands(axis, interpolation, 0))


def _bands(axis: _Axis, interpolation: Interpolation, place: int) -> Iterator[_Band]:
    """The bands of an axis whose first pixel has the ``place`` in the result."""
    firsts, lasts, weights = _weights(axis, interpolation)
    length = min(axis.length, max(LEAST_BAND, min(BAND, int(BAND_SOURCE / axis.scale))))
    starts = np.arange(0, axis.length, length)
    stops = np.minimum(starts + length, axis.length)
    begins, ends = firsts[starts], lasts[stops - 1]
    taps, pixels = np.arange(weights.shape[1]), np.arange(axis.length)
    matrices = np.zeros((len(starts), (ends - begins).max() + len(taps), length), np.float32)
    band, column = np.divmod(pixels, length)
    matrices[band[:, None], (firsts - begins[band])[:, None] + taps, column[:, None]] = weights
    for start, stop, first, last, matrix in zip(starts, stops, begins, ends, matrices, strict=True):
        part = matrix[: last - first, : stop - start]
        yield _Band(int(first), int(last), int(place + start), int(place + stop), part)


def _weights(
    axis: _Axis, interpolation: Interpolation
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]]:
    """For each pixel of the result the first and the last (exclusive) of the source, and its weights, zeros behind."""
    reach, curve = _FILTERS[interpolation]
    stretch = max(axis.scale, 1.0)
    centres = (np.arange(axis.start, axis.start + axis.length) + 0.5) * np.float64(axis.scale)
    firsts, lasts = _taps(centres, reach * stretch, axis.source)
    places = firsts[:, None] + np.arange((lasts - firsts).max())
    weights = curve((places - centres[:, None] + 0.5) * (1.0 / stretch))
    weights[places >= lasts[:, None]] = 0.0
    weights /= weights.sum(axis=1, keepdims=True)
    one = 1 << PRECISION_BITS
    return firsts, lasts, np.trunc(weights * one + np.copysign(0.5, weights)) / one


def _taps(centres: NDArray[np.float64], reach: float, source: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    firsts = np.maximum((centres - reach + 0.5).astype(np.int64), 0)
    return firsts, np.minimum((centres + reach + 0.5).astype(np.int64), source)


def _taps_of(axis: _Axis, interpolation: Interpolation) -> int:
    """Pixels of the source that one of the result is made of, at the most."""
    return int(2 * _FILTERS[interpolation].reach * max(axis.scale, 1.0)) + 1


def _reached(axis: _Axis, interpolation: Interpolation) -> tuple[int, int]:
    """The first and the last pixel (exclusive) of the source that the result needs."""
    ends = (np.array([axis.start, axis.start + axis.length - 1]) + 0.5) * axis.scale
    firsts, lasts = _taps(ends, _FILTERS[interpolation].reach * max(axis.scale, 1.0), axis.source)
    return int(firsts[0]), int(lasts[-1])


@cache
def _one_thread() -> None:
    """NumPy's matrix products stay in the thread that asks for them: each core has a process or a thread of its own."""
    threadpool_limits(limits=1, user_api="blas")
