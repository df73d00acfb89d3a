"""Resize and crop in one step: only the source of the crop is resampled, by Pillow's ``resize(size, box=...)``.

The geometry is that of torchvision's ``Resize`` and ``CenterCrop`` on a PIL image, and so are the pixels, within 1
grey level each.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from worker.models.card import Interpolation, Preprocessing

__all__ = ["fill", "resized_size"]

#: Pixels of a resized picture, or of one pass of it, up to which more is made than the crop needs, for the sake
#: of the very same pixels. It needs a bound: a line of pixels can be resized to any size.
WHOLE_PIXELS = 1 << 24
#: Share of an axis beyond which leaving out the rest costs more than it saves.
WORTH_CUTTING = 0.75

_RESAMPLING = {
    "nearest": Image.Resampling.NEAREST,
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
}
#: Reach of each filter to either side, in pixels of the coarser of source and result.
_SUPPORT = {"nearest": 1, "bilinear": 1, "bicubic": 2, "lanczos": 3}


class _Span(NamedTuple):
    """One axis of the step: pixels ``start`` to ``start + length`` of the resized picture.

    They come from ``begin..end`` of the source, and go to ``offset`` of the result.
    """

    start: int
    length: int
    begin: float
    end: float
    offset: int

    def is_exact(self) -> bool:
        """Whether Pillow, which holds a box in float32, sees the very same source."""
        return all(float(np.float32(v)) == v for v in (self.begin, self.end, self.end - self.begin))


_Spans = tuple[_Span, _Span]  # across, down


def resized_size(width: int, height: int, resize: int | tuple[int, int] | None) -> tuple[int, int]:
    """``(width, height)`` after torchvision's ``Resize``, which cuts the long side's fraction off."""
    if resize is None:
        return width, height
    if isinstance(resize, tuple):
        return resize[1], resize[0]
    if width <= height:
        return resize, int(resize * height / width)
    return int(resize * width / height), resize


def _span(source: int, resized: int, crop: int) -> _Span:
    """The source of a central crop; a crop larger than the picture leaves a border, as torchvision's does."""
    if crop >= resized:
        return _Span(0, resized, 0.0, source, (crop - resized) // 2)
    start = round((resized - crop) / 2.0)
    return _Span(start, crop, start * source / resized, (start + crop) * source / resized, 0)


def fill(image: Image.Image, resized: tuple[int, int], preprocessing: Preprocessing, out: NDArray[np.uint8]) -> None:
    """The centre of ``image`` (RGB or L), as if it had been resized to ``resized``, into ``out``; black around it."""
    height, width = out.shape[:2]
    if resized == image.size == (width, height):
        return _write(image, preprocessing, out)
    spans = across, down = (
        _span(image.width, resized[0], width),
        _span(image.height, resized[1], height),
    )
    part = _resample(image, resized, spans, preprocessing)
    if part.size != (width, height):
        out[...] = 0
        out = out[down.offset : down.offset + down.length, across.offset : across.offset + across.length]
    return _write(part, preprocessing, out)


def _write(image: Image.Image, preprocessing: Preprocessing, out: NDArray[np.uint8]) -> None:
    is_bgr = preprocessing.color_order == "BGR" and image.mode == "RGB"
    pixels = np.frombuffer(image.tobytes("raw", "BGR" if is_bgr else image.mode), np.uint8)
    out[...] = pixels.reshape(out.shape[0], out.shape[1], -1)


def _resample(image: Image.Image, resized: tuple[int, int], spans: _Spans, preprocessing: Preprocessing) -> Image.Image:
    size, interpolation = (spans[0].length, spans[1].length), preprocessing.interpolation
    if resized == image.size:
        return image if size == resized else _cut(image, spans)
    method = _RESAMPLING[interpolation]
    if interpolation == "nearest" and resized[0] * resized[1] <= WHOLE_PIXELS:
        return _cut(image.resize(resized, method), spans)
    first = _first_axis(image.size, resized)
    if _first_axis(image.size, size) != first or not _is_close(spans, first, preprocessing):
        if resized[first] * image.size[1 - first] <= WHOLE_PIXELS:
            return _in_two_passes(image, resized[first], spans, first, interpolation)
        for axis in (0, 1):
            image, spans = _near(image, spans, axis, interpolation)
    (left, right), (top, bottom) = ((span.begin, span.end) for span in spans)
    return image.resize(size, method, box=(left, top, right, bottom))


def _is_close(spans: _Spans, first: int, preprocessing: Preprocessing) -> bool:
    """Whether the crop's box alone gives every pixel within 1 grey level, or need not.

    One that float32 rounds changes the first pass by 1 level at most. The second pass keeps that to 1, if its own box
    is exact and its weights are never negative. Else about one value in ten million is off by 2, which a model that
    allows ``scaled_decode`` allows too.
    """
    if preprocessing.scaled_decode or spans[first].is_exact():
        return True
    return preprocessing.interpolation == "bilinear" and spans[1 - first].is_exact()


def _first_axis(source: tuple[int, int], size: tuple[int, int]) -> int:
    """The axis that Pillow 13's ``resize`` takes first: 0 across, 1 down.

    It rounds and clips to 8 bits between its passes, so a part of the picture must go the way of the whole:
    else up to 2 grey levels differ with ``bilinear``, up to 60 with ``lanczos``.
    """
    return int(source[1] - size[1] > max(0, 2 * (source[0] - size[0])))


def _in_two_passes(
    image: Image.Image, resized: int, spans: _Spans, first: int, interpolation: Interpolation
) -> Image.Image:
    """The first pass over its whole axis, which needs no box, and the second over the crop.

    What a rounded box does to one pass is 1 grey level at most; to both of them it can be 2.
    """
    image, spans = _near(image, spans, 1 - first, interpolation)
    image = _pass(image, first, _Span(0, resized, 0.0, image.size[first], 0), interpolation)
    start = spans[first].start
    image = _slice(image, first, start, start + spans[first].length)
    return _pass(image, 1 - first, spans[1 - first], interpolation)


def _pass(image: Image.Image, axis: int, span: _Span, interpolation: Interpolation) -> Image.Image:
    """Resize one axis alone."""
    method = _RESAMPLING[interpolation]
    if axis == 0:
        box = (span.begin, 0.0, span.end, float(image.height))
        return image.resize((span.length, image.height), method, box=box)
    box = (0.0, span.begin, float(image.width), span.end)
    return image.resize((image.width, span.length), method, box=box)


def _near(image: Image.Image, spans: _Spans, axis: int, interpolation: Interpolation) -> tuple[Image.Image, _Spans]:
    """Only what the filter reaches along an axis, where that is much less than all; and the spans in it."""
    span, source = spans[axis], image.size[axis]
    reach = math.ceil(_SUPPORT[interpolation] * max((span.end - span.begin) / span.length, 1.0)) + 2
    begin, end = max(int(span.begin) - reach, 0), min(math.ceil(span.end) + reach, source)
    if end - begin > WORTH_CUTTING * source:
        return image, spans
    span = span._replace(begin=span.begin - begin, end=span.end - begin)
    return _slice(image, axis, begin, end), (span, spans[1]) if axis == 0 else (spans[0], span)


def _slice(image: Image.Image, axis: int, begin: int, end: int) -> Image.Image:
    if end - begin == image.size[axis]:
        return image
    return image.crop((begin, 0, end, image.height) if axis == 0 else (0, begin, image.width, end))


def _cut(image: Image.Image, spans: _Spans) -> Image.Image:
    left, top = spans[0].start, spans[1].start
    return image.crop((left, top, left + spans[0].length, top + spans[1].length))
