"""From the bytes of an image file to the pixels a model gets, as a person would see the picture.

EXIF orientation is applied, what is transparent is laid on white, 16-bit samples are scaled, an animation
gives its first frame. Resize and crop are one step: only the source of the crop is resampled (Pillow's
``resize(size, box=...)``), with the geometry of torchvision's ``Resize`` and ``CenterCrop`` on a PIL image,
so that every pixel is within 1 grey level of theirs.

Every failure on hostile data is an :class:`~jobs.errors.ItemError`. The rules in words: ``docs/images.md``.
"""

from __future__ import annotations

import math
import re
import struct
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from io import BytesIO
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFile

from jobs.errors import CorruptImageError, ItemError, TooLargeError, UnsupportedFormatError
from worker.models.card import Interpolation, Preprocessing

__all__ = ["MAX_PIXELS", "DecodeLimits", "decode", "decode_into"]

#: Pixels (width x height) of one image by default; just below the number from which Pillow warns of a bomb.
MAX_PIXELS = 89_000_000
#: Pixels of a resized picture, or of one pass of it, up to which more is made than the crop needs, for the sake
#: of the very same pixels. It needs a bound: a line of pixels can be resized to any size.
WHOLE_PIXELS = 1 << 24
#: Share of an axis beyond which leaving out the rest costs more than it saves.
WORTH_CUTTING = 0.75
#: Characters of Pillow's own words that an error message may carry.
MAX_REASON = 120
#: EXIF tag of the orientation.
ORIENTATION = 0x0112

_RESAMPLING = {
    "nearest": Image.Resampling.NEAREST,
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
}
#: Reach of each filter to either side, in pixels of the coarser of source and result.
_SUPPORT = {"nearest": 1, "bilinear": 1, "bicubic": 2, "lanczos": 3}
#: What brings a picture of EXIF orientation 2 to 8 upright (EXIF 2.32, table of tag 0x0112).
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_SIGNATURES = (
    (b"\xff\xd8\xff", "JPEG"),
    (b"\x89PNG\r\n\x1a\n", "PNG"),
    (b"GIF87a", "GIF"),
    (b"GIF89a", "GIF"),
    (b"BM", "BMP"),
    (b"II*\0", "TIFF"),
    (b"MM\0*", "TIFF"),
    (b"II+\0", "TIFF"),
    (b"MM\0+", "TIFF"),
)
_ALPHA_MODES = frozenset({"RGBA", "LA", "PA", "RGBa", "La"})
_PLAIN_MODES = frozenset({"1", "P", "CMYK", "YCbCr", "HSV", "RGBX"})


@dataclass(frozen=True)
class DecodeLimits:
    """What an image may cost.

    ``max_pixels``: width x height as the file declares them, read before anything is decoded.
    """

    max_pixels: int = MAX_PIXELS


def decode(data: bytes, preprocessing: Preprocessing, limits: DecodeLimits | None = None) -> NDArray[np.uint8]:
    """The model's input of one image file: ``uint8[H, W, 3]`` with ``(H, W) == preprocessing.size``.

    Raises :class:`~jobs.errors.UnsupportedFormatError`, :class:`~jobs.errors.CorruptImageError` or
    :class:`~jobs.errors.TooLargeError`; no other exception comes from the data.
    """
    out = np.empty((*preprocessing.size, 3), np.uint8)
    decode_into(data, preprocessing, limits or DecodeLimits(), out)
    return out


def decode_into(data: bytes, preprocessing: Preprocessing, limits: DecodeLimits, out: NDArray[np.uint8]) -> None:
    """As :func:`decode`, into ``out``: ``uint8[H, W, 3]``, e.g. one image's place in a batch.

    Where it raises, what ``out`` holds is undefined.
    """
    name = _sniff(data)
    try:
        _decode(name, data, preprocessing, limits, out)
    except ItemError:
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise TooLargeError(f"{name} image of more than {limits.max_pixels} pixels") from None
    except MemoryError:
        raise TooLargeError(f"{name} image needs more memory than there is") from None
    except Exception as exc:  # Pillow's plugins raise anything on hostile data
        raise CorruptImageError(f"{name} image is damaged: {_reason(exc)}") from exc


def _decode(name: str, data: bytes, preprocessing: Preprocessing, limits: DecodeLimits, out: NDArray[np.uint8]) -> None:
    if name == "WEBP":
        _check_size(name, _webp_canvas(data), limits)  # its decoder takes the canvas's memory when it opens
    image: Image.Image = _openers()[name](BytesIO(data))
    _check_size(name, image.size, limits)
    resized = _draft(image, preprocessing) if preprocessing.scaled_decode and name == "JPEG" else None
    image.load()
    orientation = _orientation(image.info.get("exif"))  # a PNG may say it after its pixels
    image = _flat(image)
    if orientation in _UPRIGHT:
        image = image.transpose(_UPRIGHT[orientation])
    resized = resized or _resized(*image.size, preprocessing.resize)
    _fill(image, resized, preprocessing, out)


@cache
def _openers() -> dict[str, Callable[[BytesIO], ImageFile.ImageFile]]:
    """The plugins of the formats that are read, and no other; Pillow's own limit becomes an error.

    The classes are called directly: ``Image.open`` would import every plugin there is, and follow a JPEG that
    says it is a multi-picture file; its first picture is all that is wanted.
    """
    from PIL.BmpImagePlugin import BmpImageFile
    from PIL.GifImagePlugin import GifImageFile
    from PIL.JpegImagePlugin import JpegImageFile
    from PIL.PngImagePlugin import PngImageFile
    from PIL.TiffImagePlugin import TiffImageFile
    from PIL.WebPImagePlugin import WebPImageFile

    warnings.filterwarnings("ignore", module=r"PIL\.")  # on odd metadata, which is not read here
    warnings.filterwarnings("error", category=Image.DecompressionBombWarning)
    return {
        "BMP": BmpImageFile,
        "GIF": GifImageFile,
        "JPEG": JpegImageFile,
        "PNG": PngImageFile,
        "TIFF": TiffImageFile,
        "WEBP": WebPImageFile,
    }


def _sniff(data: bytes) -> str:
    """The format by its first bytes; a file's name says nothing."""
    for signature, name in _SIGNATURES:
        if data.startswith(signature):
            return name
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "WEBP"
    if not data:
        raise UnsupportedFormatError("the file is empty")
    if data[:512].lstrip(b"\xef\xbb\xbf \t\r\n").lower().startswith((b"<!doctype html", b"<html")):
        raise UnsupportedFormatError("this is a web page (HTML), not an image")
    raise UnsupportedFormatError("not a JPEG, PNG, GIF, WebP, BMP or TIFF image")


def _reason(exc: Exception) -> str:
    """Pillow's words in one printable line, without addresses of objects."""
    text = re.sub(r"<[^<>]* at 0x[0-9a-f]+>", "it", str(exc))
    text = " ".join("".join(c if c.isprintable() else " " for c in text).split())
    return text[:MAX_REASON] or type(exc).__name__


def _check_size(name: str, size: tuple[int, int], limits: DecodeLimits) -> None:
    if size[0] * size[1] > limits.max_pixels:
        what = f"{name} image of {size[0]} x {size[1]} pixels"
        raise TooLargeError(f"{what}; at most {limits.max_pixels} are allowed")


def _webp_canvas(data: bytes) -> tuple[int, int]:
    """``(width, height)`` as a WebP file's header says; (0, 0) leaves it to the decoder to refuse."""
    kind, head = data[12:16], data[20:30]
    if len(head) < 10:
        return 0, 0
    if kind == b"VP8X":
        return 1 + int.from_bytes(head[4:7], "little"), 1 + int.from_bytes(head[7:10], "little")
    if kind == b"VP8L":
        bits = int.from_bytes(head[1:5], "little")
        return 1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF)
    if kind == b"VP8 ":
        width, height = struct.unpack_from("<HH", head, 6)
        return width & 0x3FFF, height & 0x3FFF
    return 0, 0


# -- one picture, upright, RGB or grey ------------------------------------------------------------


def _orientation(exif: bytes | None) -> int:
    """EXIF orientation 1 to 8; 1 where the block has none or is damaged: that alone spoils no picture."""
    if not exif:
        return 1
    start = 6 if exif.startswith(b"Exif\0\0") else 0
    order = {b"II": "<", b"MM": ">"}.get(exif[start : start + 2])
    if order is None or len(exif) < start + 8:
        return 1
    at = start + int(struct.unpack_from(order + "I", exif, start + 4)[0])
    if at + 2 > len(exif):
        return 1
    entries = struct.unpack_from(order + "H", exif, at)[0]
    for entry in range(at + 2, min(at + 2 + 12 * entries, len(exif) - 11), 12):
        if struct.unpack_from(order + "H", exif, entry)[0] == ORIENTATION:
            return int(struct.unpack_from(order + "H", exif, entry + 8)[0])
    return 1


def _flat(image: Image.Image) -> Image.Image:
    """The picture in mode RGB or L."""
    mode = image.mode
    if mode in _ALPHA_MODES or "transparency" in image.info:
        return _on_white(image)
    if mode in ("RGB", "L"):
        return image
    if mode == "1":
        return image.convert("L")
    if mode in _PLAIN_MODES:
        return image.convert("RGB")
    if mode.startswith("I;16"):
        # the high byte, as Pillow itself does for 16-bit colour
        return Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    if mode in ("I", "F"):
        return Image.fromarray(_to_grey(np.asarray(image)))
    raise UnsupportedFormatError(f"images of colour mode {mode} are not supported")


def _on_white(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I;16") or image.mode in ("I", "F"):
        del image.info["transparency"]  # one grey value that is clear: nothing a photograph has
        return _flat(image)
    image = image.convert("RGBA")
    alpha = image.getchannel("A")
    if alpha.getextrema() == (255, 255):
        return image.convert("RGB")
    white = Image.new("RGB", image.size, (255, 255, 255))
    white.paste(image, mask=alpha)
    return white


def _to_grey(values: NDArray[np.int32] | NDArray[np.float32]) -> NDArray[np.uint8]:
    """32-bit samples as 8-bit, by the least of the usual ranges that holds them all, else by their own range.

    The usual ranges are 0..1 (floats only), 0..255 and 0..65535. What is not finite counts as 0.
    """
    exact = np.nan_to_num(values.astype(np.float64), nan=0.0, posinf=0.0, neginf=0.0)
    low, high = float(exact.min()), float(exact.max())
    if low >= 0 and high <= 65535:
        is_unit = high <= 1 and values.dtype.kind == "f"
        low, high = 0.0, 1.0 if is_unit else 255.0 if high <= 255 else 65535.0
    scaled = (exact - low) * (255.0 / ((high - low) or 1.0))
    return np.rint(scaled).astype(np.uint8)


# -- resize and crop in one step ------------------------------------------------------------------


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


def _resized(width: int, height: int, resize: int | tuple[int, int] | None) -> tuple[int, int]:
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


def _draft(image: Image.Image, preprocessing: Preprocessing) -> tuple[int, int]:
    """Let a JPEG decode at 1/2, 1/4 or 1/8, never below the size it is resized to, which is the result."""
    assert isinstance(image, ImageFile.ImageFile)
    is_on_its_side = _orientation(image.info.get("exif")) >= 5
    size = image.size[::-1] if is_on_its_side else image.size
    resized = _resized(*size, preprocessing.resize)
    if preprocessing.resize is not None:
        image.draft(None, resized[::-1] if is_on_its_side else resized)
    return resized


def _fill(image: Image.Image, resized: tuple[int, int], preprocessing: Preprocessing, out: NDArray[np.uint8]) -> None:
    """The centre of ``image``, as if it had been resized to ``resized``, into ``out``; black around it."""
    height, width = out.shape[:2]
    spans = across, down = (
        _span(image.width, resized[0], width),
        _span(image.height, resized[1], height),
    )
    part = _resample(image, resized, spans, preprocessing.interpolation)
    is_bgr = preprocessing.color_order == "BGR" and part.mode == "RGB"
    pixels = np.frombuffer(part.tobytes("raw", "BGR" if is_bgr else part.mode), np.uint8)
    if part.size != (width, height):
        out[...] = 0
        out = out[down.offset : down.offset + down.length, across.offset : across.offset + across.length]
    out[...] = pixels.reshape(part.height, part.width, -1)


def _resample(image: Image.Image, resized: tuple[int, int], spans: _Spans, interpolation: Interpolation) -> Image.Image:
    size = (spans[0].length, spans[1].length)
    if resized == image.size:
        return image if size == resized else _cut(image, spans)
    method = _RESAMPLING[interpolation]
    if interpolation == "nearest" and resized[0] * resized[1] <= WHOLE_PIXELS:
        return _cut(image.resize(resized, method), spans)
    first = _first_axis(image.size, resized)
    is_exact = spans[first].is_exact() or (interpolation == "bilinear" and spans[1 - first].is_exact())
    if not is_exact or _first_axis(image.size, size) != first:
        if resized[first] * image.size[1 - first] <= WHOLE_PIXELS:
            return _in_two_passes(image, resized[first], spans, first, interpolation)
        for axis in (0, 1):
            image, spans = _near(image, spans, axis, interpolation)
    (left, right), (top, bottom) = ((span.begin, span.end) for span in spans)
    return image.resize(size, method, box=(left, top, right, bottom))


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
