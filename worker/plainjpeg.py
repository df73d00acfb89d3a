"""The short way for JPEGs in colour or grey, at full or at a smaller scale: libjpeg-turbo straight into an array.

Pillow has the same library and makes the same pixels, but hands it the file in pieces and keeps four bytes for each
pixel, which takes half as long again. What it does not find sound is left to Pillow, which says what is wrong or reads
over it. At an eighth there is a way that is shorter still, which makes the same pixels (``worker/eighth.c``).
"""

from __future__ import annotations

import simplejpeg
from PIL import Image

from worker.kernels import kernel
from worker.picture import Pixels, turned

__all__ = ["read_jpeg"]

#: Colour spaces by the modes of Pillow's image; four inks are left to Pillow.
_SPACES = {"RGB": "RGB", "L": "GRAY"}
#: libjpeg-turbo scales by eighths. Two of them give a side of fewer pixels than this the same length.
SCALES = 8


def read_jpeg(data: bytes, image: Image.Image, declared: tuple[int, int]) -> Pixels | None:
    """The upright pixels of a JPEG file that Pillow has opened as ``image``; ``None`` leaves them to it.

    They are uint8[height, width, 3], or 1 channel for grey. ``declared`` is the file's (width, height), of which
    the image's own are less where it is to be decoded at a smaller scale.
    """
    space = _SPACES.get(image.mode)
    is_smaller = image.size != declared
    if space is None or (is_smaller and max(declared) < SCALES):
        return None
    compiled = kernel() if is_smaller and image.size == tuple(-(-side // SCALES) for side in declared) else None
    if compiled and (found := compiled.eighth(data, *declared, len(image.getbands()))) is not None:
        return turned(found, image.info.get("exif"))
    try:
        height, width = simplejpeg.decode_jpeg_header(data)[:2]
        if (width, height) != declared:
            return None  # its size is what was held against the limits
        # the smallest scale that gives as much is the one that Pillow has chosen: no other has a result of this size
        pixels: Pixels = simplejpeg.decode_jpeg(data, space, min_width=image.width, min_height=image.height)
    except ValueError:
        return None
    return turned(pixels, image.info.get("exif"))
