"""What decoding makes of each format and colour mode."""

from __future__ import annotations

import struct
from io import BytesIO
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageOps

from tests.support.pictures import AS_IT_IS, FORMATS, ROUNDING, SIDE, difference, picture, pixels, png, saved
from worker.decode import DecodeLimits, decode, decode_into
from worker.models.card import Preprocessing

# -- formats and modes ----------------------------------------------------------------------------


@pytest.mark.parametrize("kind", FORMATS)
def test_each_format_is_read(kind: str) -> None:
    data = saved(picture(), kind)
    assert difference(data, Image.open(BytesIO(data))) == 0


def test_the_result_is_a_writable_array_of_its_own() -> None:
    out = decode(saved(picture(), "PNG"), AS_IT_IS)
    assert (out.shape, out.dtype) == ((SIDE, SIDE, 3), np.uint8)
    assert out.flags.writeable
    assert out.flags.c_contiguous


def test_decoding_into_a_batch_touches_one_place_only() -> None:
    batch = np.full((3, SIDE, SIDE, 3), 7, np.uint8)
    decode_into(saved(picture(), "PNG"), batch[1], AS_IT_IS, DecodeLimits())
    assert np.array_equal(batch[1], pixels(picture()))
    assert (batch[::2] == 7).all()


@pytest.mark.parametrize("mode", ["1", "L", "RGB", "CMYK", "YCbCr"])
def test_a_tiff_of_any_plain_mode_comes_out_as_pillow_converts_it(mode: str) -> None:
    image = picture(mode)
    assert difference(saved(image, "TIFF"), image) == 0


def test_blue_comes_first_where_the_model_wants_it() -> None:
    bgr = Preprocessing(resize=None, crop=(SIDE, SIDE), color_order="BGR")
    for data in (saved(picture(), "PNG"), saved(picture(), "TIFF")):
        assert difference(data, pixels(picture())[:, :, ::-1], bgr) == 0
    assert difference(saved(picture("L"), "PNG"), picture("L"), bgr) == 0


def test_a_jpeg_of_four_inks_keeps_its_colours() -> None:
    # Pillow writes them inverted with Adobe's marker, as Photoshop does
    data = saved(picture("CMYK"), "JPEG", quality=95)
    assert b"Adobe" in data
    assert difference(data, picture()) <= 12


def test_a_jpeg_of_four_inks_resized_is_what_its_colours_resized_are() -> None:
    data = saved(picture("CMYK", (60, 40)), "JPEG", quality=95)
    expected = Image.open(BytesIO(data)).convert("RGB").resize((20, 10), Image.Resampling.BICUBIC)
    assert difference(data, expected, Preprocessing(resize=(10, 20), crop=None, interpolation="bicubic")) <= ROUNDING


def test_a_palette_comes_out_in_its_colours() -> None:
    image = picture().quantize(16)
    assert difference(saved(image, "PNG"), image) == 0


# -- transparency ---------------------------------------------------------------------------------


def on_white(image: Image.Image) -> NDArray[np.int64]:
    rgba = np.asarray(image.convert("RGBA")).astype(np.float64)
    alpha = rgba[:, :, 3:] / 255
    return np.rint(rgba[:, :, :3] * alpha + 255 * (1 - alpha)).astype(np.int64)


def with_alpha(mode: str) -> Image.Image:
    image = picture("L" if mode == "LA" else "RGB")
    image.putalpha(Image.linear_gradient("L").resize((SIDE, SIDE)))
    return image


@pytest.mark.parametrize(("mode", "kind"), [("RGBA", "PNG"), ("LA", "PNG"), ("RGBA", "TIFF"), ("RGBA", "WEBP")])
def test_what_is_transparent_is_laid_on_white(mode: str, kind: str) -> None:
    image = with_alpha(mode)
    data = saved(image, kind, lossless=True, exact=True) if kind == "WEBP" else saved(image, kind)
    assert difference(data, on_white(image)) <= ROUNDING


def test_an_opaque_alpha_channel_changes_nothing() -> None:
    assert difference(saved(picture("RGBA"), "PNG"), picture()) == 0


def test_a_palette_with_a_transparency_for_each_colour_is_laid_on_white() -> None:
    image = picture().quantize(8)
    image.info["transparency"] = bytes(range(0, 256, 32))
    data = saved(image, "PNG")
    assert difference(data, on_white(Image.open(BytesIO(data)))) <= ROUNDING


def test_the_transparent_colour_of_a_gif_is_white() -> None:
    image = Image.new("P", (SIDE, SIDE), 1)
    image.putpalette([255, 0, 0, 0, 0, 255])
    image.paste(0, (0, 0, SIDE, SIDE // 2))
    out = decode(saved(image, "GIF", transparency=0), AS_IT_IS)
    assert (out[: SIDE // 2] == 255).all()
    assert (out[SIDE // 2 :] == (0, 0, 255)).all()


@pytest.mark.parametrize(
    ("colour", "key", "row"),
    [(2, b"\0\xff\0\0\0\0", b"\0" + b"\xff\0\0\x10\x20\x30"), (0, b"\0\x10", b"\0" + b"\x10\x77")],
    ids=["colour", "grey"],
)
def test_the_transparent_colour_of_a_png_is_white(colour: int, key: bytes, row: bytes) -> None:
    out = decode(png((2, 1, 8, colour, 0), row, (b"tRNS", key)), Preprocessing(resize=None, crop=(1, 2)))
    assert (out[0, 0] == 255).all()
    assert (out[0, 1] < 128).all()


# -- more than 8 bits -----------------------------------------------------------------------------


def ramp(top: int, dtype: str) -> NDArray[Any]:
    return np.linspace(0, top, SIDE * SIDE).reshape(SIDE, SIDE).astype(dtype)


def grey(values: NDArray[Any]) -> NDArray[np.int64]:
    return np.repeat(values.astype(np.int64)[:, :, None], 3, axis=2)


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_16_bits_are_scaled_to_8_and_not_clipped(kind: str) -> None:
    values = ramp(65535, "uint16")
    assert difference(saved(Image.fromarray(values), kind), grey(values >> 8)) == 0


def test_16_bits_of_the_other_byte_order_are_the_same() -> None:
    values = ramp(65535, "uint16")
    data = saved(Image.frombytes("I;16B", (SIDE, SIDE), values.astype(">u2").tobytes()), "TIFF")
    assert difference(data, grey(values >> 8)) == 0


def test_16_bit_colour_is_scaled_as_16_bit_grey_is() -> None:
    row = b"\0" + struct.pack(">6H", 65535, 32768, 256, 0, 255, 40000)
    out = decode(png((2, 1, 16, 2, 0), row), Preprocessing(resize=None, crop=(1, 2)))
    assert out.tolist() == [[[255, 128, 1], [0, 0, 156]]]


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (ramp(1, "float32"), ramp(1, "float32") * 255),
        (ramp(255, "float32"), ramp(255, "float32")),
        (ramp(65535, "float32"), ramp(65535, "float32") / 257),
        (ramp(200, "float32") - 100, ramp(200, "float32") / 200 * 255),
        (ramp(200, "int32"), ramp(200, "int32")),
        (ramp(60000, "int32"), ramp(60000, "int32") / 257),
        (ramp(2_000_000, "int32") - 1_000_000, ramp(2_000_000, "int32") / 2_000_000 * 255),
    ],
    ids=["0..1", "0..255", "0..65535", "negative", "int 0..255", "int 0..65535", "int of any range"],
)
def test_32_bits_are_scaled_by_the_range_they_are_in(values: NDArray[Any], expected: NDArray[Any]) -> None:
    assert difference(saved(Image.fromarray(values), "TIFF"), grey(np.rint(expected))) <= ROUNDING


def test_a_float_that_is_no_number_is_black() -> None:
    values = ramp(1, "float32")
    values[3, 4], values[5, 6] = np.nan, np.inf
    out = decode(saved(Image.fromarray(values), "TIFF"), AS_IT_IS)
    assert out[3, 4].max() == out[5, 6].max() == 0
    assert out[-1, -1].min() == 255


# -- orientation and frames -----------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_picture_is_turned_as_its_exif_says(kind: str, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = saved(picture(size=(30, 20)), kind, exif=exif)
    expected = ImageOps.exif_transpose(Image.open(BytesIO(data)))
    prep = Preprocessing(resize=None, crop=expected.size[::-1])
    assert difference(data, expected, prep) == 0


@pytest.mark.parametrize("byte_order", ["<", ">"])
def test_exif_is_read_in_either_byte_order(byte_order: str) -> None:
    head = (b"II*\0" if byte_order == "<" else b"MM\0*") + struct.pack(byte_order + "I", 8)
    entry = struct.pack(byte_order + "HHIHH", 0x0112, 3, 1, 3, 0)
    exif = b"Exif\0\0" + head + struct.pack(byte_order + "H", 1) + entry + bytes(4)
    data = saved(picture(), "PNG", exif=exif)
    assert difference(data, picture().rotate(180)) == 0


@pytest.mark.parametrize(
    "exif",
    [b"II*\0", b"II*\0\xff\xff\xff\xff", b"MM\0*\0\0\0\x08\xff\xff", b"garbage" * 9, b"II*\0\x08\0\0\0\x01\0\x12\x01"],
)
def test_a_damaged_exif_block_spoils_no_picture(exif: bytes) -> None:
    data = saved(picture(), "PNG", exif=b"Exif\0\0" + exif)
    assert difference(data, picture()) == 0


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "PNG", "TIFF"])
def test_the_first_of_several_frames_is_taken(kind: str) -> None:
    frames = [Image.new("RGB", (SIDE, SIDE), colour) for colour in ("#d00000", "#00d000", "#0000d0")]
    options = {"lossless": True} if kind == "WEBP" else {}
    data = saved(frames[0], kind, save_all=True, append_images=frames[1:], **options)
    assert Image.open(BytesIO(data)).n_frames == 3
    assert difference(data, frames[0]) <= ROUNDING
