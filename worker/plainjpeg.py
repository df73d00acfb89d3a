"""The short way for JPEGs in colour or grey, at full or at a smaller scale: libjpeg-turbo straight into an array.

Pillow has the same library and makes the same pixels, but hands it the file in pieces and keeps four bytes for each
pixel, which takes half as long again; before that it takes apart in Python all that a header may hold. Here only what
decides about pixels is read of a header. What is not plain, or not found sound, is left to Pillow, which says what is
wrong or reads over it. At an eighth there is a way that is shorter still, which makes the same pixels
(``worker/eighth.c``).
"""

from __future__ import annotations

import struct
from typing import NamedTuple

import simplejpeg

from worker.kernels import kernel
from worker.picture import Box, Pixels, as_it_lies, is_on_its_side, turned

__all__ = ["Header", "read_header", "read_jpeg"]

#: Colour spaces by the number of components; four inks are left to Pillow.
_SPACES = {3: "RGB", 1: "GRAY"}
#: libjpeg-turbo scales by eighths. Two of them give a side of fewer pixels than this the same length.
SCALES = 8
#: Scales that Pillow chooses among.
_DRAFTS = (8, 4, 2, 1)
#: Markers (T.81, table B.1): a frame's of the kinds that everybody writes; those that are stepped over: tables, restart
#: intervals, applications and comments; and a scan's.
_FRAMES = frozenset({0xFFC0, 0xFFC1, 0xFFC2})
_OTHERS = frozenset({0xFFC4, 0xFFDB, 0xFFDD, 0xFFFE, *range(0xFFE0, 0xFFF0)})
_EXIF, _SCAN = 0xFFE1, 0xFFDA
#: A marker and the length of its segment; bits, height, width and components of a frame.
_SEGMENT, _FRAME = struct.Struct(">HH"), struct.Struct(">BHHB")


class Header(NamedTuple):
    """What a JPEG file says before its first scan. ``exif``: its EXIF block, empty where it has none."""

    width: int
    height: int
    components: int
    exif: bytes

    def drafted(self, width: int, height: int) -> tuple[int, int]:
        """(width, height) at the smallest scale that is at least as large as this, as Pillow's ``draft`` chooses it."""
        most = min(self.width // width, self.height // height)
        scale = next((scale for scale in _DRAFTS if scale <= most), 1)
        return -(-self.width // scale), -(-self.height // scale)


def read_header(data: bytes) -> Header | None:
    """The header of a file that begins as JPEGs do; ``None`` where it is not plain: there is more to it, or less."""
    at, frame, exif = 2, None, b""
    try:
        while True:
            marker, length = _SEGMENT.unpack_from(data, at)
            if marker == _SCAN:
                return Header(*frame, exif) if frame else None
            if marker in _FRAMES:
                bits, height, width, components = _FRAME.unpack_from(data, at + 4)
                if frame or bits != 8 or components not in _SPACES or not height or not width:
                    return None
                frame = width, height, components
            elif marker not in _OTHERS or length < 2:
                return None
            elif marker == _EXIF and data.startswith(b"Exif\0\0", at + 4):
                exif += data[at + (10 if exif else 4) : at + 2 + length]
            at += 2 + length
    except struct.error:  # it ends before its scan
        return None


def read_jpeg(data: bytes, header: Header, size: tuple[int, int], wanted: Box | None = None) -> Pixels | None:
    """The upright pixels of a JPEG file; ``None`` leaves them to Pillow.

    They are uint8[height, width, 3], or 1 channel for grey. ``size`` is the (width, height) of the picture as it lies,
    or of a smaller scale of it (:meth:`Header.drafted`). Outside of ``wanted``, a part of the upright one, pixels may
    hold anything.
    """
    declared = header.width, header.height
    is_smaller = size != declared
    if is_smaller and max(declared) < SCALES:
        return None
    compiled = kernel() if is_smaller and size == tuple(-(-side // SCALES) for side in declared) else None
    if compiled:
        part = as_it_lies(wanted, size[::-1] if is_on_its_side(header.exif) else size, header.exif) if wanted else None
        found = compiled.eighth(data, *declared, header.components, part)
        if found is not None:
            return turned(found, header.exif)
    try:
        # the smallest scale that gives as much is the one that was chosen: no other has a result of this size
        pixels: Pixels = simplejpeg.decode_jpeg(data, _SPACES[header.components], min_width=size[0], min_height=size[1])
    except ValueError:
        return None
    return turned(pixels, header.exif) if pixels.shape[1::-1] == size else None
