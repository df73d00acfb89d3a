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
from worker.plainjpeg import read_jpeg

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
    image = Image.open(BytesIO(data))
    return read_jpeg(data, image, image.size)


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
    found = read_jpeg(data, image, SIZE)
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
    image = Image.open(BytesIO(data))
    image._size = (SIZE[0], SIZE[1] - 1)  # as a file would have it whose header the two libraries read differently
    assert read_jpeg(data, image, image.size) is None
