"""From the bytes of an image file to the pixels a model gets, as a person would see the picture.

EXIF orientation is applied, what is transparent is laid on white, 16-bit samples are scaled, an animation
gives its first frame. Resize and crop are one step, with the geometry of torchvision's ``Resize`` and ``CenterCrop``
on a PIL image: every pixel is within 1 grey level of theirs, see :mod:`worker.resample`.

Every failure on hostile data is an :class:`~jobs.errors.ItemError`. The rules in words: ``docs/images.md``.
"""

from __future__ import annotations

import re
import struct
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from io import BytesIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFile

from jobs.errors import CorruptImageError, ItemError, TooLargeError, UnsupportedFormatError
from worker.models.card import Preprocessing
from worker.picture import is_on_its_side, size_of, upright
from worker.plainjpeg import read_header, read_jpeg
from worker.plainpng import read_plain
from worker.resample import fill, reach, resized_size

__all__ = ["MAX_PIXELS", "DecodeLimits", "decode", "decode_into"]

#: Pixels (width x height) of one image by default: the number beyond which Pillow itself warns of a bomb.
MAX_PIXELS = 89_478_485
#: Characters of Pillow's own words that an error message may carry.
MAX_REASON = 120
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
    decode_into(data, out, preprocessing, limits or DecodeLimits())
    return out


def decode_into(data: bytes, out: NDArray[np.uint8], preprocessing: Preprocessing, limits: DecodeLimits) -> None:
    """As :func:`decode`, into ``out``: ``uint8[H, W, 3]``, e.g. one image's place in a batch.

    Where it raises, what ``out`` holds is undefined.
    """
    name = _sniff(data)
    if limits.max_pixels > (Image.MAX_IMAGE_PIXELS or limits.max_pixels):
        Image.MAX_IMAGE_PIXELS = limits.max_pixels  # the operator allows more than Pillow does
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
    if name == "PNG" and (plain := read_plain(data, limits.max_pixels)) is not None:
        return fill(plain, resized_size(*size_of(plain), preprocessing.resize), preprocessing, out)
    if name == "JPEG" and (header := read_header(data)):
        size = header.width, header.height
        _check_size(name, size, limits)
        upright_size, lying = _targets(size, header.exif, preprocessing)
        drafted, wanted = size, None
        if preprocessing.scaled_decode and (drafted := header.drafted(*lying)) != size:
            wanted = reach(drafted if lying == upright_size else drafted[::-1], upright_size, preprocessing)
        pixels = read_jpeg(data, header, drafted, wanted)
        if pixels is not None:
            return fill(pixels, upright_size, preprocessing, out)
    if name == "WEBP":
        _check_size(name, _webp_canvas(data), limits)  # its decoder takes the canvas's memory when it opens
    image: Image.Image = _openers()[name](BytesIO(data))
    _check_size(name, image.size, limits)
    resized = _draft(image, preprocessing) if preprocessing.scaled_decode and name == "JPEG" else None
    image.load()
    image = upright(image)
    resized = resized or resized_size(*image.size, preprocessing.resize)
    return fill(image, resized, preprocessing, out)


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
    if re.match(r"unpack(_from)? requires a buffer", str(exc)):
        return "it ends too early"
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


def _targets(size: tuple[int, int], exif: bytes | None, preprocessing: Preprocessing) -> tuple[tuple[int, int], ...]:
    """What a JPEG of a size is resized to: (width, height) upright, and the same as it lies in its file."""
    is_turned = is_on_its_side(exif)
    resized = resized_size(*(size[::-1] if is_turned else size), preprocessing.resize)
    return resized, resized[::-1] if is_turned else resized


def _draft(image: Image.Image, preprocessing: Preprocessing) -> tuple[int, int]:
    """Let a JPEG decode at 1/2, 1/4 or 1/8, never below the size it is resized to, which is the result.

    A side that the scale does not divide comes out up to one of the larger pixels too long, and is taken as it is.
    """
    assert isinstance(image, ImageFile.ImageFile)
    resized, lying = _targets(image.size, image.info.get("exif"), preprocessing)
    image.draft(None, lying)
    return resized
