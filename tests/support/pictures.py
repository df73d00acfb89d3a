"""Pictures for tests of decoding, and files of them, some made by hand."""

from __future__ import annotations

import struct
import zlib
from io import BytesIO
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from worker.decode import decode
from worker.models.card import Preprocessing

__all__ = ["AS_IT_IS", "FORMATS", "ROUNDING", "SIDE", "chunk", "difference", "picture", "pixels", "png", "saved"]

SIDE = 24
#: Takes every pixel as it is.
AS_IT_IS = Preprocessing(resize=None, crop=(SIDE, SIDE))
FORMATS = ["JPEG", "PNG", "GIF", "WEBP", "BMP", "TIFF"]
#: What a lossless detour through another colour space may cost, in grey levels.
ROUNDING = 1


def picture(mode: str = "RGB", size: tuple[int, int] = (SIDE, SIDE)) -> Image.Image:
    """Smooth, and different in each corner, so that a turn shows and JPEG keeps it."""
    corners = Image.fromarray(np.array([[[250, 10, 20], [20, 240, 30]], [[30, 40, 230], [200, 190, 60]]], np.uint8))
    return corners.resize(size, Image.Resampling.BILINEAR).convert(mode)


def saved(image: Image.Image, kind: str, **options: Any) -> bytes:
    file = BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def pixels(image: Image.Image) -> NDArray[np.int64]:
    return np.asarray(image.convert("RGB")).astype(np.int64)


def difference(data: bytes, expected: Image.Image | NDArray[Any], prep: Preprocessing = AS_IT_IS) -> int:
    theirs = pixels(expected) if isinstance(expected, Image.Image) else expected
    return int(np.abs(decode(data, prep).astype(np.int64) - theirs).max())


def png(header: tuple[int, int, int, int, int], rows: bytes, *chunks: tuple[bytes, bytes]) -> bytes:
    """A PNG made by hand: width, height, depth, colour type, interlace; filtered rows; chunks before the pixels."""
    width, height, depth, colour, interlace = header
    ihdr = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, interlace)
    parts = [(b"IHDR", ihdr), *chunks, (b"IDAT", zlib.compress(rows)), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(map(chunk, parts))


def chunk(part: tuple[bytes, bytes]) -> bytes:
    kind, body = part
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
