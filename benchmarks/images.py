"""The images that benchmarks run on, cut out of ``examples/photos`` and kept in ``build/bench/images``."""

from __future__ import annotations

import random
from pathlib import Path

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


def make_images(kind: str, count: int) -> Path:
    """A folder of ``count`` images, made once: ``tiny`` are PNGs, all others JPEGs, e.g. ``250x188``."""
    size = NAMED.get(kind) or _size(kind)
    folder = FOLDER / f"{kind}-{count}"
    done = folder / ".done"
    if done.exists():
        return folder
    folder.mkdir(parents=True, exist_ok=True)
    chance = random.Random(f"{kind} {count}")
    pictures = [Image.open(SOURCES / name).convert("RGB") for name in NAMES if (SOURCES / name).exists()]
    for number in range(count):
        image = _window(chance, chance.choice(pictures), size)
        if kind == "tiny":
            image.save(folder / f"{number:06}.png")
        else:
            image.save(folder / f"{number:06}.jpg", quality=QUALITY)
    done.touch()
    return folder


def _size(kind: str) -> tuple[int, int]:
    width, height = kind.split("x")
    return int(width), int(height)


def _window(chance: random.Random, picture: Image.Image, size: tuple[int, int]) -> Image.Image:
    """A random part of a picture, of the shape of ``size``, scaled to it and perhaps mirrored."""
    largest = min(picture.width / size[0], picture.height / size[1])
    scale = largest * chance.uniform(0.6, 1.0)
    width, height = size[0] * scale, size[1] * scale
    left, top = chance.uniform(0, picture.width - width), chance.uniform(0, picture.height - height)
    image = picture.resize(size, Image.Resampling.BICUBIC, box=(left, top, left + width, top + height))
    image.info = {}  # no colour profile of its source
    return image.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if chance.random() < 0.5 else image
