"""One upright picture in RGB or grey from whatever a file holds, as a person would see it.

A picture is a PIL image in mode RGB or L, or an array of its pixels: uint8[height, width, 3 or 1].
"""

from __future__ import annotations

import struct

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from jobs.errors import UnsupportedFormatError

__all__ = [
    "Box",
    "Picture",
    "Pixels",
    "as_it_lies",
    "channels_of",
    "cut",
    "is_on_its_side",
    "pixels_of",
    "planes",
    "size_of",
    "turned",
    "upright",
]

Pixels = NDArray[np.uint8]
Picture = Image.Image | Pixels
#: Left, top, right and bottom, as Pillow has them: the last two are outside.
Box = tuple[int, int, int, int]

#: EXIF tag of the orientation.
ORIENTATION = 0x0112


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
_ALPHA_MODES = frozenset({"RGBA", "LA", "PA", "RGBa", "La"})
_PLAIN_MODES = frozenset({"1", "P", "CMYK", "YCbCr", "HSV", "RGBX"})


def upright(image: Image.Image) -> Image.Image:
    """A loaded image as one picture in mode RGB or L, turned as its EXIF block says.

    Raises :class:`~jobs.errors.UnsupportedFormatError` where its colours cannot be read.
    """
    turn = _UPRIGHT.get(_orientation(image.info.get("exif")))
    image = _flat(image)
    return image if turn is None else image.transpose(turn)


def turned(pixels: Pixels, exif: bytes | None) -> Pixels:
    """The pixels of a picture upright, as its EXIF block says."""
    orientation = _orientation(exif)
    if 5 <= orientation <= 8:
        pixels = pixels.swapaxes(0, 1)
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    return pixels


def as_it_lies(box: Box, size: tuple[int, int], exif: bytes | None) -> Box:
    """The part of a picture that :func:`turned` brings to ``box`` of the upright one, of (width, height) ``size``."""
    (left, top, right, bottom), (width, height) = box, size
    orientation = _orientation(exif)
    if orientation in (2, 3, 6, 7):
        left, right = width - right, width - left
    if orientation in (3, 4, 7, 8):
        top, bottom = height - bottom, height - top
    return (top, left, bottom, right) if 5 <= orientation <= 8 else (left, top, right, bottom)


def size_of(picture: Picture) -> tuple[int, int]:
    """Width and height in pixels."""
    return picture.size if isinstance(picture, Image.Image) else (picture.shape[1], picture.shape[0])


def channels_of(picture: Picture) -> int:
    """3 or 1."""
    return len(picture.getbands()) if isinstance(picture, Image.Image) else picture.shape[2]


def cut(picture: Picture, box: Box) -> Picture:
    """A part of a picture."""
    if isinstance(picture, Image.Image):
        return picture.crop(box)
    left, top, right, bottom = box
    return picture[top:bottom, left:right]


def pixels_of(picture: Picture) -> Pixels:
    """The pixels of a picture: uint8[height, width, 3 or 1]."""
    if isinstance(picture, Image.Image):
        return np.frombuffer(picture.tobytes(), np.uint8).reshape(picture.height, picture.width, -1)
    return picture


def planes(picture: Picture, box: Box) -> list[Pixels]:
    """The channels of a part of a picture: a uint8[height, width] each."""
    part = cut(picture, box)
    if isinstance(part, Image.Image):
        return [np.frombuffer(plane.tobytes(), np.uint8).reshape(part.height, -1) for plane in part.split()]
    return [part[:, :, channel] for channel in range(part.shape[2])]


def is_on_its_side(exif: bytes | None) -> bool:
    """Whether width and height change places when a picture with this EXIF block is turned upright."""
    return 5 <= _orientation(exif) <= 8


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
