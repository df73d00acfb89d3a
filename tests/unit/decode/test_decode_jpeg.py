"""JPEGs that go straight to libjpeg-turbo have Pillow's pixels, and what it does not take is Pillow's to judge."""

from __future__ import annotations

from io import BytesIO
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from PIL.JpegImagePlugin import JpegImageFile

from jobs.errors import CorruptImageError
from tests.support.pictures import picture, saved
from worker.decode import decode
from worker.models.card import Preprocessing
from worker.picture import upright
from worker.plainjpeg import Header, read_header, read_jpeg

SIZE = (47, 33)
AS_IT_IS = Preprocessing(resize=None, crop=SIZE[::-1])
KINDS: dict[str, dict[str, Any]] = {
    "4:4:4": {"subsampling": 0},
    "4:2:2": {"subsampling": 1},
    "4:2:0": {"subsampling": 2},
    "progressive": {"progressive": True},
    "coarse": {"quality": 5},
    "without loss of colour": {"quality": 100, "subsampling": 0},
    "in RGB": {"keep_rgb": True},
    "with restarts": {"restart_marker_blocks": 2},
    "optimised": {"optimize": True},
    "with a profile": {"icc_profile": b"0" * 70_000},
}


def noisy(mode: str = "RGB") -> Image.Image:
    """Smooth colours with noise, so that every frequency and every way to subsample shows."""
    noise = np.random.default_rng(0).integers(-40, 40, (SIZE[1], SIZE[0], 3))
    return Image.fromarray((np.asarray(picture(size=SIZE)) + noise).clip(0, 255).astype(np.uint8)).convert(mode)


def by_pillow(data: bytes) -> NDArray[np.uint8]:
    image = Image.open(BytesIO(data))
    image.load()
    return np.asarray(upright(image).convert("RGB"))


def short_way(data: bytes) -> NDArray[np.uint8] | None:
    header = read_header(data)
    return header and read_jpeg(data, header, (header.width, header.height))


@pytest.mark.parametrize("mode", ["RGB", "L"])
@pytest.mark.parametrize("kind", KINDS)
def test_a_jpeg_has_the_very_pixels_that_pillow_reads(kind: str, mode: str) -> None:
    data = saved(noisy(mode), "JPEG", **KINDS[kind])
    assert short_way(data) is not None
    assert np.array_equal(decode(data, AS_IT_IS), by_pillow(data))


@pytest.mark.parametrize("mode", ["RGB", "L"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_it_is_turned_as_pillow_turns_it(orientation: int, mode: str) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = saved(noisy(mode), "JPEG", exif=exif)
    expected = by_pillow(data)
    assert short_way(data) is not None
    assert np.array_equal(decode(data, Preprocessing(resize=None, crop=expected.shape[:2])), expected)
    resized = Preprocessing(resize=20, crop=(18, 16), interpolation="bicubic")
    as_bmp = decode(saved(Image.fromarray(expected), "BMP"), resized)
    assert np.array_equal(decode(data, resized), as_bmp)


@pytest.mark.parametrize("mode", ["RGB", "L"])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("scale", [1, 2, 4, 8])
def test_at_a_smaller_scale_it_has_the_very_pixels_of_pillows_draft(scale: int, kind: str, mode: str) -> None:
    data = saved(noisy(mode), "JPEG", **KINDS[kind])
    image = Image.open(BytesIO(data))
    assert isinstance(image, JpegImageFile)
    image.draft(None, (SIZE[0] // scale, SIZE[1] // scale))
    assert image.size == (-(-SIZE[0] // scale), -(-SIZE[1] // scale))
    header = read_header(data)
    assert header is not None
    assert header.drafted(SIZE[0] // scale, SIZE[1] // scale) == image.size
    found = read_jpeg(data, header, image.size)
    assert found is not None
    assert np.array_equal(found.squeeze(), np.asarray(image))


def test_no_size_is_too_small_to_be_read_at_a_smaller_scale() -> None:
    for width in range(1, 12):
        for height in range(1, 12):
            data = saved(noisy().resize((width, height)), "JPEG", quality=95)
            card = Preprocessing(resize=(1, 1), crop=(1, 1), scaled_decode=True)
            by_libjpeg = decode(data, card)
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr("worker.decode.read_jpeg", lambda *_: None)
                assert np.array_equal(by_libjpeg, decode(data, card)), (width, height)


@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_blue_comes_first_where_the_model_wants_it(mode: str) -> None:
    data = saved(noisy(mode), "JPEG")
    for size in ({"resize": None, "crop": SIZE[::-1]}, {"resize": 20, "crop": (18, 16)}):
        rgb, bgr = (Preprocessing(**size, color_order=order) for order in ("RGB", "BGR"))
        assert np.array_equal(decode(data, bgr), decode(data, rgb)[:, :, ::-1])


def test_four_inks_are_left_to_pillow() -> None:
    data = saved(noisy("CMYK"), "JPEG")
    assert short_way(data) is None
    assert np.array_equal(decode(data, AS_IT_IS), by_pillow(data))


def test_what_pillow_reads_over_is_read_over() -> None:
    data = bytearray(saved(noisy(), "JPEG"))
    data[-30:-20] = b"\xff\x01" * 5  # no marker that can stand there
    assert short_way(bytes(data)) is None
    assert np.array_equal(decode(bytes(data), AS_IT_IS), by_pillow(bytes(data)))


def test_one_that_ends_too_early_is_damaged() -> None:
    data = saved(noisy(), "JPEG")
    assert short_way(data[:-200]) is None
    with pytest.raises(CorruptImageError):
        decode(data[:-200], AS_IT_IS)


def test_a_size_that_was_not_held_against_the_limits_is_not_decoded() -> None:
    data = saved(noisy(), "JPEG")
    header = Header(
        SIZE[0], SIZE[1] - 1, 3, b""
    )  # as a file would have it whose header we and the library read differently
    assert read_jpeg(data, header, (header.width, header.height)) is None


def segments(data: bytes) -> list[bytes]:
    """What a file's header is made of, up to its scan; and all that follows."""
    at, found = 2, []
    while data[at + 1] != 0xDA:
        length = int.from_bytes(data[at + 2 : at + 4], "big")
        found.append(data[at : at + 2 + length])
        at += 2 + length
    return [*found, data[at:]]


def frame_of(data: bytes) -> int:
    """Where the header of the frame begins."""
    return data.index(b"\xff\xc0")


def test_an_exif_block_in_several_segments_is_put_together_as_pillow_does() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    exif[0x010E] = "a" * 300
    first, *others = segments(saved(noisy(), "JPEG", exif=exif))
    at = others.index(next(part for part in others if part.startswith(b"\xff\xe1")))
    body = others[at][4:]
    pieces = [body[:60], b"Exif\0\0" + body[60:200], b"Exif\0\0" + body[200:]]
    others[at : at + 1] = [b"\xff\xe1" + (len(piece) + 2).to_bytes(2, "big") + piece for piece in pieces]
    data = b"\xff\xd8" + b"".join([first, *others])
    header = read_header(data)
    assert header is not None
    assert header.exif == Image.open(BytesIO(data)).info["exif"] == body
    assert np.array_equal(decode(data, Preprocessing(resize=None, crop=SIZE)), by_pillow(data))


def test_a_header_that_is_not_plain_is_left_to_pillow() -> None:
    data = saved(noisy(), "JPEG")
    frame = frame_of(data)
    whole = data[frame : frame + 2 + int.from_bytes(data[frame + 2 : frame + 4], "big")]
    begin, end = data[:frame], data[frame + len(whole) :]
    odd = {
        "bytes that fill up": begin + b"\xff" + whole + end,
        "bytes between segments": begin + b"\0" + whole + end,
        "a second picture begins": begin + b"\xff\xd8" + whole + end,
        "two frames": begin + whole + whole + end,
        "no frame": begin + end,
        "arithmetic codes": begin + b"\xff\xc9" + whole[2:] + end,
        "12 bits": begin + whole[:4] + b"\x0c" + whole[5:] + end,
        "no height": begin + whole[:5] + b"\0\0" + whole[7:] + end,
        "no width": begin + whole[:7] + b"\0\0" + whole[9:] + end,
        "a segment of no length": begin + b"\xff\xfe\0\0" + whole + end,
        "a segment that goes beyond the file": begin + b"\xff\xfe\xff\xff" + whole + end,
        "no scan": data[: data.index(b"\xff\xda")],
        "nothing": data[:2],
    }
    assert read_header(begin + whole + end) == Header(*SIZE, 3, b"")
    assert {name: read_header(changed) for name, changed in odd.items()} == dict.fromkeys(odd)


@pytest.mark.filterwarnings("ignore::UserWarning")  # of Pillow, on its damaged EXIF block
def test_what_it_says_of_a_damaged_header_pillow_says_too() -> None:
    exif = Image.Exif()
    exif[0x0112] = 5
    whole = saved(noisy(), "JPEG", exif=exif, comment=b"a word", restart_marker_blocks=2)
    scan = whole.index(b"\xff\xda")
    chance, agreed = np.random.default_rng(0), 0
    for _ in range(3000):
        data = bytearray(whole)
        for place in chance.integers(2, scan, 1 + chance.integers(3)):
            data[place] = chance.choice(
                [0, 1, 0xFF, 0xC0, 0xC4, 0xDA, 0xDB, 0xE1, data[place] ^ 1 << chance.integers(8)]
            )
        header = read_header(bytes(data))
        try:
            image = Image.open(BytesIO(data))
        except OSError:
            continue  # what libjpeg-turbo makes of it decides
        if header is not None:
            assert (header.width, header.height, header.components) == (*image.size, len(image.getbands()))
            assert header.exif == image.info.get("exif", b"")
            agreed += 1
    assert agreed > 500
