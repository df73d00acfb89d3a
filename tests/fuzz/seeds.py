"""Sound files of each format, as many kinds of it as Pillow writes: what the damaged ones are made of."""

from __future__ import annotations

import random
from collections.abc import Iterator
from functools import cache
from io import BytesIO
from typing import Any

from PIL import Image

__all__ = ["FORMATS", "sound_files"]

FORMATS = ("jpeg", "png", "gif", "webp", "bmp", "tiff")
_SIZES = ((48, 36), (7, 90), (1, 1), (170, 130))


@cache
def sound_files(kind: str) -> tuple[bytes, ...]:
    """Files of a format; the same ones in each process."""
    return tuple(_MAKERS[kind]())


def _picture(mode: str, size: tuple[int, int]) -> Image.Image:
    rng = random.Random(f"{mode}{size}")
    coarse = Image.frombytes("RGBA", (8, 8), rng.randbytes(8 * 8 * 4)).resize(size, Image.Resampling.BICUBIC)
    if mode == "P":
        return coarse.convert("RGB").quantize(32)
    if mode in ("I", "F", "I;16"):
        return coarse.convert("L").convert("I").point(lambda v: v * 250).convert(mode)
    return coarse.convert(mode)


def _saved(image: Image.Image, kind: str, **options: Any) -> bytes:
    file = BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def _frames(kind: str, mode: str, **options: Any) -> bytes:
    frames = [_picture(mode, (40, 30)).rotate(90 * n) for n in range(3)]
    return _saved(frames[0], kind, save_all=True, append_images=frames[1:], **options)


def _exif() -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = 6
    exif[0x010E] = "a description"
    return exif


def _jpeg() -> Iterator[bytes]:
    for size in _SIZES:
        for mode in ("RGB", "L", "CMYK"):
            yield _saved(_picture(mode, size), "JPEG")
    large = _picture("RGB", (170, 130))
    yield _saved(large, "JPEG", progressive=True, exif=_exif())
    yield _saved(large, "JPEG", subsampling=0, restart_marker_blocks=2, icc_profile=bytes(3000))
    yield _frames("MPO", "RGB")


def _png() -> Iterator[bytes]:
    for size in _SIZES:
        for mode in ("RGB", "L", "RGBA", "LA", "P", "1", "I;16"):
            yield _saved(_picture(mode, size), "PNG")
    yield _saved(_picture("P", (48, 36)), "PNG", transparency=bytes(range(32)), exif=_exif())
    yield _saved(_picture("RGB", (48, 36)), "PNG", transparency=(9, 9, 9), icc_profile=bytes(300))
    yield _frames("PNG", "RGBA")


def _gif() -> Iterator[bytes]:
    for size in _SIZES:
        for mode in ("RGB", "L", "P", "1"):
            yield _saved(_picture(mode, size), "GIF")
    yield _saved(_picture("P", (48, 36)), "GIF", transparency=3, interlace=1)
    yield _frames("GIF", "P", transparency=1, disposal=2)
    yield _frames("GIF", "RGB", loop=0)


def _webp() -> Iterator[bytes]:
    for size in _SIZES:
        for mode in ("RGB", "RGBA"):
            for is_lossless in (True, False):
                yield _saved(_picture(mode, size), "WEBP", lossless=is_lossless)
    yield _saved(_picture("RGBA", (48, 36)), "WEBP", exif=_exif(), icc_profile=bytes(300))
    yield _frames("WEBP", "RGBA", lossless=True)
    yield _frames("WEBP", "RGB")


def _bmp() -> Iterator[bytes]:
    for size in _SIZES:
        for mode in ("RGB", "RGBA", "L", "P", "1"):
            yield _saved(_picture(mode, size), "BMP")


def _tiff() -> Iterator[bytes]:
    for size in _SIZES:
        for mode in ("RGB", "RGBA", "L", "LA", "P", "1", "CMYK", "YCbCr", "LAB", "I;16", "I", "F"):
            yield _saved(_picture(mode, size) if mode != "LAB" else Image.new("LAB", size, (99, 130, 120)), "TIFF")
    large = _picture("RGB", (170, 130))
    for compression in ("tiff_lzw", "tiff_adobe_deflate", "packbits", "jpeg", "zstd", "lzma"):
        yield _saved(large, "TIFF", compression=compression, exif=_exif())
    for compression in ("group3", "group4", "tiff_ccitt"):
        yield _saved(large.convert("1"), "TIFF", compression=compression)
    yield _saved(large, "TIFF", big_tiff=True)
    yield _frames("TIFF", "RGB", compression="tiff_lzw")


_MAKERS = {"jpeg": _jpeg, "png": _png, "gif": _gif, "webp": _webp, "bmp": _bmp, "tiff": _tiff}
