"""Resize and crop in one step, held against torchvision's own transforms on PIL images."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from jobs.errors import TooLargeError
from tests.support.compiled import compiled
from tests.support.pictures import saved
from worker import resample
from worker.decode import decode
from worker.export.vision import vision
from worker.models.card import Preprocessing

PHOTO = Path(__file__).parents[3] / "examples" / "photos" / "coffee.jpg"
#: Width and height in pixels: odd, tiny, a line, a panorama, about the sizes resized to, and those of photographs.
SIZES = [
    *((1, 1), (1, 40), (40, 1), (2, 3), (5, 900), (900, 5), (17, 375), (31, 33), (32, 32)),
    *((223, 225), (224, 224), (256, 256), (257, 255), (375, 500), (500, 375), (333, 500), (641, 479), (100, 2000)),
]
INTERPOLATIONS = ["nearest", "bilinear", "bicubic", "lanczos"]
RESIZES_AND_CROPS: list[tuple[Any, Any]] = [
    *((256, (224, 224)), (232, (224, 224)), (32, (32, 32)), (97, (61, 83)), (64, (100, 64)), (5, (9, 2))),
    *(((64, 48), None), ((64, 48), (32, 60)), ((224, 7), (100, 7)), (None, (224, 224)), (None, (3, 50))),
]


@pytest.fixture(scope="module", params=["compiled", "NumPy"], autouse=True)
def is_exact(request: pytest.FixtureRequest) -> Iterator[bool]:
    """Both ways to resize, each for all of these tests; the compiled one gives the very pixels."""
    if request.param == "NumPy":
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(resample, "kernel", lambda: None)
            yield False
        return
    compiled()
    yield True


@pytest.fixture(scope="module")
def torchvision() -> ModuleType:
    return vision()


def noise(width: int, height: int, seed: int = 0) -> Image.Image:
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)
    return Image.fromarray(pixels)


def stripes(width: int, height: int) -> Image.Image:
    """Black and white without anything between: where a filter overshoots and a half pixel shows."""
    pixels = np.random.default_rng(1).integers(0, 2, (height, width, 1), np.uint8) * np.full(3, 255, np.uint8)
    return Image.fromarray(pixels)


def bmp(image: Image.Image) -> bytes:
    file = BytesIO()
    image.save(file, "BMP")
    return file.getvalue()


def by_torchvision(torchvision: ModuleType, image: Image.Image, prep: Preprocessing) -> NDArray[np.uint8]:
    transforms = torchvision.transforms
    if prep.resize is not None:
        mode = transforms.InterpolationMode(prep.interpolation)
        image = transforms.Resize(prep.resize, interpolation=mode, antialias=True)(image)
    if prep.crop is not None:
        image = transforms.CenterCrop(prep.crop)(image)
    return np.asarray(image)


def largest_difference(torchvision: ModuleType, image: Image.Image, prep: Preprocessing) -> int:
    ours = decode(bmp(image), prep)
    theirs = by_torchvision(torchvision, image, prep)
    assert ours.shape == theirs.shape
    return int(np.abs(ours.astype(int) - theirs).max())


@pytest.mark.parametrize("interpolation", INTERPOLATIONS)
@pytest.mark.parametrize("size", SIZES, ids=lambda size: f"{size[0]}x{size[1]}")
def test_every_pixel_is_within_one_grey_level_of_torchvision(
    torchvision: ModuleType, size: tuple[int, int], interpolation: Any, is_exact: bool
) -> None:
    for image in (noise(*size), stripes(*size)):
        for resize, crop in RESIZES_AND_CROPS:
            prep = Preprocessing(resize=resize, crop=crop, interpolation=interpolation)
            worst = largest_difference(torchvision, image, prep)
            assert worst <= (0 if is_exact or interpolation == "nearest" else 1), prep


@settings(max_examples=150, deadline=None, derandomize=True)
@given(data=st.data())
def test_no_size_is_further_than_one_grey_level_from_torchvision(
    torchvision: ModuleType, is_exact: bool, data: st.DataObject
) -> None:
    length, goal = st.integers(1, 700), st.integers(1, 300)
    size = data.draw(st.tuples(length, length))
    resize = data.draw(st.one_of(st.none(), st.tuples(goal, goal), st.integers(1, 200).filter(lambda n: fits(n, size))))
    prep = Preprocessing(
        resize=resize, crop=data.draw(st.tuples(goal, goal)), interpolation=data.draw(st.sampled_from(INTERPOLATIONS))
    )
    assert largest_difference(torchvision, noise(*size), prep) <= (0 if is_exact else 1)


def fits(short_side: int, size: tuple[int, int]) -> bool:
    """Whether torchvision's whole resized picture is of a size that a test may make."""
    return short_side * short_side * max(size) / min(size) < 4e6


def test_nearest_neighbours_are_the_very_pixels_of_torchvision(torchvision: ModuleType) -> None:
    prep = Preprocessing(resize=37, crop=(29, 31), interpolation="nearest")
    assert largest_difference(torchvision, noise(811, 613), prep) == 0


def test_nearest_neighbours_are_the_same_where_pillow_has_added_up_a_million_steps(torchvision: ModuleType) -> None:
    line = Image.fromarray(np.random.default_rng(0).integers(0, 256, (2, 1_500_002), np.uint8))
    prep = Preprocessing(resize=3, crop=(3, 112), interpolation="nearest")
    theirs = by_torchvision(torchvision, line, prep)
    assert np.array_equal(decode(saved(line, "PNG"), prep)[:, :, 0], theirs)


def test_a_line_too_long_to_be_made_as_a_whole_still_gives_its_nearest_neighbours(
    torchvision: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(resample, "WHOLE_PIXELS", 0)
    for size in ((3000, 2), (2, 3000), (500, 375)):
        prep = Preprocessing(resize=20, crop=(17, 19), interpolation="nearest")
        image = noise(*size)
        assert (decode(bmp(image), prep) != by_torchvision(torchvision, image, prep)).mean() < 0.2


def test_a_sum_of_more_pixels_is_in_doubt_for_longer() -> None:
    few, many, most = (resample._doubt(resample._Axis(n, 256, 0, 256, 0), "lanczos") for n in (500, 30_000, 10**8))
    assert 12 * 2.0**-16 <= few < 1e-3 < many < most < 0.5


def test_a_picture_of_the_right_size_comes_out_as_it_is() -> None:
    image = noise(32, 32)
    for prep in (Preprocessing(resize=32, crop=(32, 32)), Preprocessing(resize=None, crop=(32, 32))):
        assert np.array_equal(decode(bmp(image), prep), np.asarray(image))


def test_a_picture_smaller_than_the_crop_stands_in_the_middle_of_black() -> None:
    out = decode(bmp(Image.new("RGB", (3, 4), "white")), Preprocessing(resize=None, crop=(8, 8)))
    assert out[2:6, 2:5].min() == 255
    out[2:6, 2:5] = 0
    assert out.max() == 0


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic", "lanczos"])
@pytest.mark.parametrize("size", [(3000, 2), (2, 3000), (4000, 3), (500, 375), (200, 900)])
def test_an_axis_that_is_taken_in_parts_gives_the_same_pixels(
    torchvision: ModuleType, size: tuple[int, int], interpolation: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(resample, "WEIGHTS", 50)
    monkeypatch.setattr(resample, "STRIP", 100)
    for resize in (20, (20, 40)):
        prep = Preprocessing(resize=resize, crop=(17, 19), interpolation=interpolation)
        assert largest_difference(torchvision, noise(*size), prep) <= 1


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic", "lanczos"])
def test_nearly_every_pixel_of_a_photograph_is_the_very_same(
    torchvision: ModuleType, interpolation: Any, is_exact: bool
) -> None:
    photo = Image.open(PHOTO).convert("RGB").resize((500, 375))
    prep = Preprocessing(interpolation=interpolation)
    theirs = by_torchvision(torchvision, photo, prep)
    assert (decode(bmp(photo), prep) != theirs).mean() <= (0.0 if is_exact else 0.005)


@pytest.mark.parametrize("mode", ["RGB", "L"])
@pytest.mark.parametrize("turn", range(4))
def test_pixels_may_lie_in_any_order_in_memory(turn: int, mode: str) -> None:
    """As those of a picture that was turned upright do."""
    pixels = np.asarray(noise(90, 61).convert(mode)).reshape(61, 90, -1)
    pixels = (pixels, pixels[::-1], pixels[:, ::-1], pixels.swapaxes(0, 1))[turn]
    prep = Preprocessing(resize=40, crop=(33, 29), interpolation="bicubic")
    found = [np.empty((33, 29, 3), np.uint8) for _ in range(2)]
    for picture, out in zip((pixels, np.ascontiguousarray(pixels)), found, strict=True):
        resample.fill(picture, resample.resized_size(pixels.shape[1], pixels.shape[0], 40), prep, out)
    assert np.array_equal(*found)


def test_a_part_of_another_size_is_not_resized() -> None:
    kernel = compiled()
    taps = resample._kept_taps(resample._Axis(50, 20, 0, 20, 0), "bicubic")
    for shape in ((50, 49, 3), (49, 50, 3), (50, 50, 4)):
        with pytest.raises(ValueError, match="a part of"):
            kernel.resample(np.zeros(shape, np.uint8), taps, taps, is_down_first=False)


def test_threads_do_not_share_what_they_compute_in() -> None:
    files = [bmp(noise(300 + seed, 200, seed)) for seed in range(24)]
    prep = Preprocessing(resize=64, crop=(48, 48), interpolation="bicubic")
    expected = [decode(file, prep) for file in files]
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda file: decode(file, prep), files * 8))
    assert all(np.array_equal(one, expected[place % len(files)]) for place, one in enumerate(found))


def test_the_matrix_products_stay_in_their_thread() -> None:
    code = (
        "import numpy as np; from threadpoolctl import threadpool_info; from PIL import Image; from io import BytesIO;"
        "from worker.decode import decode; from worker.models.card import Preprocessing; file = BytesIO();"
        "from worker import resample; resample.kernel = lambda: None;"
        "Image.new('RGB', (300, 300)).save(file, 'BMP'); decode(file.getvalue(), Preprocessing());"
        "print({pool['num_threads'] for pool in threadpool_info() if pool['user_api'] == 'blas'})"
    )
    environment = {**os.environ, "OPENBLAS_NUM_THREADS": "2"}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout == "{1}\n"


def test_a_line_of_pixels_costs_no_more_memory_than_its_crop() -> None:
    # torchvision would make a picture of 256 x 12,800,000 pixels of it
    out = decode(bmp(noise(50_000, 1)), Preprocessing())
    assert out.shape == (224, 224, 3)


def test_a_line_of_millions_of_pixels_is_refused_where_all_of_it_would_be_resized() -> None:
    line = saved(Image.new("L", (17_000_000, 1)), "PNG")
    with pytest.raises(TooLargeError, match=r"17000000 x 1 pixels is too long to be resized"):
        decode(line, Preprocessing(resize=(224, 224), interpolation="bicubic"))
    assert decode(line, Preprocessing(resize=(224, 224), interpolation="nearest")).shape == (224, 224, 3)


def test_scaled_decoding_is_for_jpegs_that_stay_larger_than_they_are_resized_to() -> None:
    exact, scaled = (Preprocessing(resize=64, crop=(64, 64), scaled_decode=s) for s in (False, True))

    def same(size: tuple[int, int], kind: str) -> bool:
        file = BytesIO()
        noise(*size).save(file, kind)
        return np.array_equal(decode(file.getvalue(), exact), decode(file.getvalue(), scaled))

    assert same((127, 300), "JPEG")
    assert not same((128, 300), "JPEG")
    assert same((128, 300), "PNG")


def test_scaled_decoding_of_a_picture_on_its_side_gives_the_same_picture_upright() -> None:
    smooth = noise(8, 6).resize((800, 600), Image.Resampling.BICUBIC)
    exif = Image.Exif()
    exif[0x0112] = 6
    file = BytesIO()
    smooth.save(file, "JPEG", quality=95, exif=exif)
    exact, scaled = (
        decode(file.getvalue(), Preprocessing(resize=64, crop=(64, 50), scaled_decode=s)).astype(int)
        for s in (False, True)
    )
    assert np.abs(exact - scaled).max() <= 6
