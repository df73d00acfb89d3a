"""The short way for plain PNGs: 8 bits a channel in grey or colour, this one with or without alpha.

Only the walk over the chunks is done here. ISA-L inflates what they hold, photographs in less than half of zlib's time,
and ``worker/unfilter.c`` restores four rows at once. Without what is compiled, Pillow's own decoder reads small files,
thumbnails by the thousand, of which its PNG plugin is half the cost. The pixels are the same. Whatever is not plain
(palette, other depths, interlace, animation, EXIF), or not sound, is left to the plugin, which says what is wrong.
"""

from __future__ import annotations

import struct

import numpy as np
from isal import igzip_lib, isal_zlib
from PIL import Image

from worker.kernels import Kernel, kernel
from worker.picture import Picture, Pixels, upright

__all__ = ["read_plain"]

#: Bytes of a file up to which Pillow's Python costs more than its decoding, so that it pays to go round it.
SMALL_BYTES = 1 << 16
#: Bytes of rows that are inflated and restored in one go: about what a core's cache holds.
PIECE = 1 << 18
#: IHDR's last five bytes of a plain image (depth, colour type, compression, filter, interlace): its mode and channels.
_MODES = {
    b"\x08\x00\x00\x00\x00": ("L", 1),
    b"\x08\x02\x00\x00\x00": ("RGB", 3),
    b"\x08\x06\x00\x00\x00": ("RGBA", 4),
}
#: Chunks that change no pixel of what is made here, whatever they hold; but for words that Pillow takes for EXIF.
_WORDS = frozenset({b"tEXt", b"zTXt", b"iTXt"})
_IDLE = _WORDS | {b"gAMA", b"sRGB", b"cHRM", b"iCCP", b"sBIT", b"bKGD", b"pHYs", b"tIME"}
_EXIF = b"exif\0"
#: The largest window that zlib's header may name (RFC 1950, CINFO); ISA-L takes larger ones.
_MOST_WINDOW = 7
#: Where IHDR begins, which is the first chunk; and the length and type before a chunk's data.
_FIRST, _HEAD = 8, struct.Struct(">I4s")


def read_plain(data: bytes, max_pixels: int) -> Picture | None:
    """The picture of a PNG file in RGB or grey; ``None`` leaves it to Pillow's plugin."""
    mode, channels = _MODES.get(data[24:29], ("", 0))
    compiled = kernel()
    if not mode or data[8:16] != b"\x00\x00\x00\x0dIHDR" or not (compiled or len(data) <= SMALL_BYTES):
        return None
    width, height = struct.unpack_from(">II", data, 16)
    if not 0 < width * height <= max_pixels:
        return None
    packed = _deflated(data)
    if packed is None:
        return None
    if compiled is None:
        return _by_pillow(mode, (width, height), packed)
    pixels = _restored(compiled, packed, width, height, channels)
    if pixels is None or mode != "RGBA":
        return pixels
    return upright(Image.frombuffer(mode, (width, height), pixels, "raw", mode, 0, 1))


def _deflated(data: bytes) -> bytearray | None:
    """What the IDAT chunks hold, of a file that is sound and has nothing else that matters."""
    found: bytearray | None = None  # and not the parts: a file may have millions, with nothing in them
    view, at, last, before = memoryview(data), _FIRST, len(data) - 12, b""
    while at <= last:
        length, kind = _HEAD.unpack_from(data, at)
        end = at + 8 + length
        if isal_zlib.crc32(view[at + 4 : end]) != int.from_bytes(data[end : end + 4], "big"):
            return None
        if kind == b"IEND":
            break
        if kind == b"IDAT":
            if found is None:
                found = bytearray(view[at + 8 : end])
            elif before == kind:
                found += view[at + 8 : end]
            else:  # what is apart is not read by everybody
                return None
        elif (kind not in _IDLE and at != _FIRST) or (kind in _WORDS and data.startswith(_EXIF, at + 8)):
            return None
        at, before = end + 4, kind
    else:
        return None
    return found if found and found[0] >> 4 <= _MOST_WINDOW else None


def _restored(compiled: Kernel, packed: bytearray, width: int, height: int, channels: int) -> Pixels | None:
    """The pixels, of exactly as many bytes as these need, and a right checksum behind them; no more is inflated.

    Some rows at a time: together they take as much memory as the pixels.
    """
    row = 1 + width * channels
    pixels = np.empty((1 + height, width, channels), np.uint8)
    pixels[0] = 0  # what is above the first
    inflate, step = igzip_lib.IgzipDecompressor(flag=igzip_lib.DECOMP_ZLIB), max(1, PIECE // row)
    try:
        for first in range(0, height, step):
            size, is_last = min(step, height - first) * row, first + step >= height
            rows = inflate.decompress(b"" if first else packed, size + is_last)
            if len(rows) != size or not compiled.unfilter(rows, pixels, first):
                return None
    except (igzip_lib.IsalError, EOFError):  # type: ignore[misc]  # a class, whatever its stubs say
        return None
    return pixels[1:] if inflate.eof else None


def _by_pillow(mode: str, size: tuple[int, int], packed: bytearray) -> Picture | None:
    try:
        return upright(Image.frombytes(mode, size, packed, "zip", mode, False))
    except ValueError:  # the plugin says what is wrong with it
        return None
