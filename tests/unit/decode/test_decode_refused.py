"""What decoding refuses: files that are no images, damaged ones, and those that would cost too much."""

from __future__ import annotations

import struct

import numpy as np
import pytest
from PIL import Image

from jobs.errors import CorruptImageError, ItemError, TooLargeError, UnsupportedFormatError
from tests.support.pictures import AS_IT_IS, FORMATS, SIDE, picture, png, saved
from worker.decode import MAX_PIXELS, DecodeLimits, decode


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\0" * 100,
        b"hello",
        b"<!DOCTYPE html><html><body>404</body></html>",
        b"\xef\xbb\xbf\n <html>",
        b"RIFF\0\0\0\0WAVE",
        saved(picture(), "PPM"),
        saved(picture(), "ICO"),
        saved(picture(), "TGA"),
        saved(picture(), "EPS"),
    ],
    ids=["empty", "zeros", "text", "html", "html with a mark", "wav", "ppm", "ico", "tga", "eps"],
)
def test_what_is_no_image_of_a_supported_format_is_unsupported(data: bytes) -> None:
    with pytest.raises(UnsupportedFormatError):
        decode(data, AS_IT_IS)


def test_a_web_page_is_named_as_what_it_is() -> None:
    with pytest.raises(UnsupportedFormatError, match="HTML"):
        decode(b"<html>Not found</html>", AS_IT_IS)


def test_colours_that_cannot_be_converted_are_unsupported() -> None:
    with pytest.raises(UnsupportedFormatError, match="LAB"):
        decode(saved(Image.new("LAB", (SIDE, SIDE)), "TIFF"), AS_IT_IS)


@pytest.mark.parametrize("kind", FORMATS)
@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
def test_a_truncated_file_is_corrupt(kind: str, share: float) -> None:
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (200, 200, 3), np.uint8))
    data = saved(noise, kind)
    with pytest.raises(CorruptImageError):
        decode(data[: int(len(data) * share)], AS_IT_IS)


@pytest.mark.parametrize("kind", FORMATS)
def test_nothing_but_the_first_bytes_is_corrupt(kind: str) -> None:
    for size in (12, 20) if kind == "WEBP" else (8, 12, 20):  # of fewer bytes nobody can say that it is one
        with pytest.raises(CorruptImageError) as refused:
            decode(saved(picture(), kind)[:size], AS_IT_IS)
        assert "unpack" not in refused.value.message


@pytest.mark.parametrize("kind", FORMATS)
def test_more_pixels_than_the_limit_are_too_large(kind: str) -> None:
    data = saved(picture(), kind)
    with pytest.raises(TooLargeError, match=r"24 x 24 pixels; at most 575 are allowed"):
        decode(data, AS_IT_IS, DecodeLimits(max_pixels=SIDE * SIDE - 1))
    decode(data, AS_IT_IS, DecodeLimits(max_pixels=SIDE * SIDE))


def test_a_bomb_is_too_large_by_its_header_alone() -> None:
    bombs = [
        png((60_000, 60_000, 8, 2, 0), b""),
        b"GIF89a"
        + struct.pack("<HHBBB", 60_000, 60_000, 0, 0, 0)
        + b","
        + struct.pack("<HHHHB", 0, 0, 9, 9, 0)
        + b"\x02",
        b"BM" + struct.pack("<IHHI", 99, 0, 0, 54) + struct.pack("<IiiHHIIiiII", 40, 60_000, 60_000, 1, 24, *[0] * 6),
        b"RIFF\0\x01\0\0WEBPVP8X" + struct.pack("<I", 10) + bytes(4) + b"\xff\xff\xff" * 2,
    ]
    for bomb in bombs:
        with pytest.raises(TooLargeError):
            decode(bomb, AS_IT_IS)


@pytest.mark.parametrize("lossless", [False, True])
def test_a_webp_is_measured_before_its_decoder_takes_memory(lossless: bool) -> None:
    data = saved(picture(), "WEBP", lossless=lossless)
    with pytest.raises(TooLargeError):
        decode(data, AS_IT_IS, DecodeLimits(max_pixels=SIDE * SIDE - 1))
    assert decode(data, AS_IT_IS, DecodeLimits(max_pixels=SIDE * SIDE)).shape == (SIDE, SIDE, 3)


def test_an_operator_may_allow_more_pixels_than_pillow_does(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    data = saved(picture(), "GIF")
    assert decode(data, AS_IT_IS, DecodeLimits(max_pixels=SIDE * SIDE)).shape == (SIDE, SIDE, 3)


def test_the_default_limit_is_where_pillow_begins_to_warn() -> None:
    assert MAX_PIXELS == 1024 * 1024 * 1024 // 4 // 3


@pytest.mark.parametrize("kind", FORMATS)
@pytest.mark.parametrize("damage", [slice(20), slice(28, None), slice(30, 40)], ids=["cut", "header only", "smeared"])
def test_a_message_is_one_printable_line_without_paths(kind: str, damage: slice) -> None:
    data = bytearray(saved(picture("RGB", (90, 90)), kind))
    data[damage] = b"\r\n\x1b[31m" if damage.start else data[damage]
    with pytest.raises(ItemError) as raised:
        decode(bytes(data[:60]), AS_IT_IS)
    message = raised.value.message
    assert message.isprintable()
    assert len(message) < 200
    assert not any(word in message for word in ("/", "0x", "<"))
