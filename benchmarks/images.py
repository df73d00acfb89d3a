"""The images that benchmarks run on, cut out of ``examples/photos`` and kept in ``build/bench/images``."""

from __future__ import annotations

import os
import random
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

from PIL import Image

__all__ = ["make_images"]

HERE = Path(__file__).resolve().parent
SOURCES = HERE.parent / "examples" / "photos"
FOLDER = HERE.parent / "build" / "bench" / "images"
#: (width, height) in pixels, by name.
NAMED = {"photo": (500, 375), "tiny": (32, 32), "large": (4000, 3000)}
#: JPEG quality of the photographs.
QUALITY = 90
#: The pictures that are photographs, and large enough to be cut.
NAMES = ("astronaut.jpg", "coffee.jpg", "rocket.jpg", "retina.jpg", "animals/chelsea.jpg")


class _Window(NamedTuple):
    """A part of a picture: pixels of it, and whether they are mirrored."""

    picture: Image.Image
    box: tuple[float, float, float, float]
    is_mirrored: bool


def make_images(kind: str, count: int) -> Path:
    """A folder of ``count`` images, made once: ``tiny`` are PNGs, all others JPEGs, e.g. ``250x188``."""
    size = NAMED.get(kind) or _size(kind)
    folder = FOLDER / f"{kind}-{count}"
    done = folder / ".done"
    if done.exists():
        return folder
    folder.mkdir(parents=True, exist_ok=True)
    pictures = [Image.open(SOURCES / name).convert("RGB") for name in NAMES if (SOURCES / name).exists()]
    windows = _windows(random.Random(f"{kind} {count}"), pictures, size, count)
    suffix = "png" if kind == "tiny" else "jpg"
    with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:  # Pillow computes without the interpreter's lock
        paths = (folder / f"{number:06}.{suffix}" for number in range(count))
        for _ in pool.map(lambda window, path: _write(window, size, path), windows, paths):
            pass
    done.touch()
    return folder


def _size(kind: str) -> tuple[int, int]:
    width, height = kind.split("x")
    return int(width), int(height)


def _windows(
    chance: random.Random, pictures: Sequence[Image.Image], size: tuple[int, int], count: int
) -> Iterator[_Window]:
    """Random parts of the pictures, of the shape of ``size``."""
    for _ in range(count):
        picture = chance.choice(pictures)
        largest = min(picture.width / size[0], picture.height / size[1])
        scale = largest * chance.uniform(0.6, 1.0)
        width, height = size[0] * scale, size[1] * scale
        left, top = chance.uniform(0, picture.width - width), chance.uniform(0, picture.height - height)
        yield _Window(picture, (left, top, left + width, top + height), chance.random() < 0.5)


def _write(window: _Window, size: tuple[int, int], path: Path) -> None:
    """A file of it, scaled to ``size``."""
    image = window.picture.resize(size, Image.Resampling.BICUBIC, box=window.box)
    image.info = {}  # no colour profile of its source
    if window.is_mirrored:
        image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    image.save(path, quality=QUALITY)
