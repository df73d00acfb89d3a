"""The golden sample: a few images made from seeds, and the scores that the model must give for them.

The images are made anew wherever the sample is compared, so that the card carries no pixels. They come from
the raw 64-bit stream of numpy's PCG64, the only part of numpy.random whose output is promised to stay. They
differ in brightness, contrast and structure, so that a branch that looks at the input takes both ways.
The expected scores are those of the eager PyTorch module, all of them, as little-endian float32 in base64.
"""

from __future__ import annotations

import base64
from typing import Any

import numpy as np

from jobs.errors import GoldenSampleError, ModelCardError, ModelRunError
from worker.models.runtime import Images, Runtime, Scores

__all__ = ["ATOL", "RTOL", "golden_images", "make", "verify"]

#: Names the way in which the images are made; another way gets another name.
GENERATOR = "pcg64-v1"
#: Kind and seed of each image.
IMAGES = (("noise", 1), ("dark", 2), ("bright", 3), ("blocks", 4))
#: Edge of the squares of a "blocks" image, as a fraction of the image's own.
BLOCKS = 8
#: Relative and absolute tolerance of float32 scores: float32 sums differ by some 1e-6 between kernels.
RTOL, ATOL = 1e-3, 1e-5


def golden_images(height: int, width: int, images: tuple[tuple[str, int], ...] = IMAGES) -> Images:
    """``uint8[N, height, width, 3]``: the same on every machine."""
    return np.stack([_image(kind, seed, height, width) for kind, seed in images])


def make(scores: Scores, *, rtol: float = RTOL, atol: float = ATOL) -> dict[str, Any]:
    """The sample, ready for JSON, from the scores of :func:`golden_images`."""
    return {
        "generator": GENERATOR,
        "images": [list(image) for image in IMAGES],
        "scores": base64.b64encode(scores.astype("<f4").tobytes()).decode(),
        "rtol": rtol,
        "atol": atol,
    }


def verify(runtime: Runtime) -> None:
    """Compare the runtime with its card's sample, all images at once and the first one alone.

    Does nothing where the card has none, as with plain files and ``noop``.
    Raises :class:`~jobs.errors.GoldenSampleError` with the largest difference.
    """
    sample = runtime.card.golden
    if sample is None:
        return
    images, expected, rtol, atol = _read(sample, runtime)
    try:
        _compare(runtime, expected, runtime.predict(images), rtol, atol)
        _compare(runtime, expected[:1], runtime.predict(images[:1]), rtol, atol)
    except ModelRunError as exc:
        raise GoldenSampleError(f"{runtime.card.name} fails on its golden sample: {exc.message}") from exc


def _compare(runtime: Runtime, expected: Scores, scores: Scores, rtol: float, atol: float) -> None:
    if scores.shape == expected.shape and np.allclose(scores, expected, rtol=rtol, atol=atol):
        return
    worst = float(np.abs(scores - expected).max()) if scores.shape == expected.shape else float("nan")
    raise GoldenSampleError(
        f"{runtime.card.name} answers its golden sample differently here: largest difference {worst:.2g}, "
        f"allowed {atol:g} + {rtol:g} x score; the file was changed or exported wrong: export it again"
    )


def _read(sample: dict[str, Any], runtime: Runtime) -> tuple[Images, Scores, float, float]:
    try:
        if sample["generator"] != GENERATOR:
            raise ModelCardError(f"golden sample of generator {sample['generator']!r}; this version makes {GENERATOR}")
        kinds = tuple((str(kind), int(seed)) for kind, seed in sample["images"])
        images = golden_images(*runtime.card.preprocessing.size, kinds)
        scores = np.frombuffer(base64.b64decode(sample["scores"]), "<f4").astype(np.float32)
        expected = scores.reshape(len(images), len(runtime.card.labels))
        rtol, atol = float(sample["rtol"]), float(sample["atol"])
        if not (0 <= rtol < 1 and 0 <= atol < 1):
            raise ModelCardError(
                f"golden sample with a tolerance of {atol:g} + {rtol:g} x score: nothing would fail it"
            )
        return images, expected, rtol, atol
    except (KeyError, TypeError, ValueError) as exc:
        raise ModelCardError(f"golden sample cannot be read: {type(exc).__name__}: {exc}") from exc


def _image(kind: str, seed: int, height: int, width: int) -> Images:
    if kind == "blocks":
        small = _noise(seed, BLOCKS, BLOCKS)
        rows = np.arange(height) * BLOCKS // height
        columns = np.arange(width) * BLOCKS // width
        return small[rows][:, columns]
    noise = _noise(seed, height, width)
    if kind == "noise":
        return noise
    if kind in ("dark", "bright"):
        dark = noise >> np.uint8(3)
        return dark if kind == "dark" else np.uint8(255) - dark
    raise ValueError(f"unknown kind of image {kind!r}")


def _noise(seed: int, height: int, width: int) -> Images:
    count = height * width * 3
    words = np.random.PCG64(seed).random_raw(-(-count // 8))
    return words.astype("<u8").view(np.uint8)[:count].reshape(height, width, 3)
