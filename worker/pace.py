"""How fast a model is in this process, by batch size: its predictions alone, and the whole work of a stream.

The second is what counts: beside decoding, and other streams, which take the caches, other sizes may be better than
alone.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cached_property
from io import BytesIO
from itertools import cycle
from statistics import median

import numpy as np
from PIL import Image

from jobs.errors import ModelRunError
from worker.decode import DecodeLimits, decode_into
from worker.engine import TOGETHER, top
from worker.models.card import Preprocessing
from worker.models.runtime import Images, Runtime

__all__ = ["Work", "choice", "compared", "near", "predicting", "sample_file"]

log = logging.getLogger(__name__)

#: Batch sizes that are tried.
BATCH_SIZES = (1, 2, 4, 8, 16, 32, 64)
#: On a GPU, which more images fill. Not measured: no GPU was at hand.
GPU_BATCH_SIZES = (*BATCH_SIZES, 128, 256, 512)
#: Seconds that a batch may take, for a larger one to be tried: a chunk is no longer.
LONGEST_S = 0.1
#: One that is slower by this factor ends the search.
HOPELESS = 1.15
#: Images that a size predicts in a row at the least: the first of them bring its memory back into the core's caches.
STRETCH = 8
#: Sizes whose predictions are as fast as the fastest, but for this factor, are compared in full; so many at the most.
NEAR, FINALISTS = 1.1, 3
#: Sizes within this factor of the fastest change places from one minute to the next, as what else the machine's caches
#: hold does: where others fill them, larger batches are better, and small ones where nobody does. The one in the middle
#: is never far from the best.
ALIKE = 1.06
#: Of the seconds of a turn: those before it that do not count, and those that images take that are decoded in one go.
ASIDE, GO = 0.3, 0.3
#: Labels of each image that are ranked meanwhile.
TOP_K = 5
#: Pictures that are decoded in turn. Of a single one a processor learns the branches by heart: small PNGs are decoded a
#: fifth faster then.
SAMPLES = 32
#: (width, height) in pixels of the pictures that are decoded, and the side of an input that takes smaller ones.
PHOTO, SMALL = (500, 375), 64
#: Rows and columns of noise that they are made of: files as large, and as much work, as photographs and thumbnails.
GRAIN, SMALL_GRAIN = (24, 32), (6, 8)


def predicting(runtime: Runtime, *, seconds: float) -> dict[int, float]:
    """Images/s from pixels to result lines by batch size.

    Sizes take turns, and the fastest run of each counts, so that what else the machine does meanwhile decides nothing.
    Takes little more than ``seconds``, but for models that need longer for a few images.
    """
    trials = _trials(runtime)
    until = time.perf_counter() + seconds
    while time.perf_counter() < until:
        for size in trials:
            for _ in range(max(1, STRETCH // size)):
                trials[size] = min(trials[size], _timed(runtime, size))
    runtime.shrink()
    return {size: size / fastest_s for size, fastest_s in trials.items()}


def near(rates: Mapping[int, float]) -> list[int]:
    """The batch sizes that may be the best, by :func:`predicting`, ascending."""
    fastest = max(rates.values())
    found = [size for size, rate in rates.items() if rate * NEAR >= fastest]
    return sorted(sorted(found, key=rates.__getitem__)[-FINALISTS:])


def compared(
    run: Callable[[int, float], float], sizes: Sequence[int], *, rounds: int, turn_s: float
) -> dict[int, float]:
    """Images/s by batch size, which ``run(size, seconds)`` gives: medians of rounds in which each size has a turn."""
    found = [{size: run(size, turn_s) for size in sizes} for _ in range(rounds)]
    return {size: median(rates[size] for rates in found) for size in sizes}


def choice(rates: Mapping[int, float]) -> int:
    """The batch size to take: the middle one of those that are as fast as the fastest, but for :data:`ALIKE`.

    Of two middle ones the faster.
    """
    fastest = max(rates.values())
    alike = sorted(size for size, rate in rates.items() if rate * ALIKE >= fastest)
    middle = alike[(len(alike) - 1) // 2 : len(alike) // 2 + 1]
    return max(middle, key=rates.__getitem__)


class Work:
    """What a worker's stream does but for fetching, see :class:`~worker.engine.Engine`: decode, predict, rank.

    ``most``: images of a batch at the most. As many are decoded in one go, until :meth:`limit` says how many more.
    """

    def __init__(self, runtime: Runtime, most: int) -> None:
        self._runtime = runtime
        self._preprocessing = runtime.card.preprocessing
        self._most = self._together = most
        self._images = self._room(most)
        self._predict(self._images)

    @cached_property
    def _files(self) -> Iterator[bytes]:
        """Made when they are needed: who starts with a plan only predicts, and who was told one has two batches."""
        return cycle([sample_file(self._preprocessing, seed=seed) for seed in range(min(SAMPLES, 2 * self._most))])

    def run(self, size: int, seconds: float) -> float:
        """Images/s in batches of ``size``, at most as many as there is room for; one batch at the least.

        What is done in a share of them before (:data:`ASIDE`) is not counted: memory comes back into the caches then,
        and the system puts processes that wake up at once on one core, and then on two.
        """
        size = min(size, self._most)
        images = self._images[: max(size, self._together // size * size)]
        self._for(seconds * ASIDE, images, size)
        return self._for(seconds, images, size)

    def limit(self, seconds: float) -> None:
        """Leave no room for more images than are decoded in so many seconds, however large a batch a GPU would like.

        As many are decoded in one go as take a share of them with their predictions (:data:`GO`).
        """
        decode_s, image_s = self._seconds_of_one()
        self._most = max(1, min(self._most, int(seconds / decode_s)))
        self._together = min(int(seconds * GO / image_s), TOGETHER // self._images[0].nbytes)
        self._images = self._room(max(self._most, self._together))

    def _room(self, images: int) -> Images:
        return np.zeros((images, *self._preprocessing.size, 3), np.uint8)

    def _for(self, seconds: float, images: Images, size: int) -> float:
        done, began = 0, time.perf_counter()
        while True:
            self._once(images, size)
            done += len(images)
            if (taken := time.perf_counter() - began) >= seconds:
                return done / taken

    def _once(self, images: Images, size: int) -> None:
        if self._runtime.decodes:
            for place in images:
                decode_into(next(self._files), place, self._preprocessing, DecodeLimits())
        for at in range(0, len(images), size):
            self._predict(images[at : at + size])

    def _seconds_of_one(self) -> tuple[float, float]:
        """Of decoding, and of all."""
        found = []
        for _ in range(3):
            file, image = next(self._files), self._images[:1]
            began = time.perf_counter()
            decode_into(file, image[0], self._preprocessing, DecodeLimits())
            decoded = time.perf_counter()
            self._predict(image)
            found.append((decoded - began, time.perf_counter() - began))
        return min(decode_s for decode_s, _ in found), min(image_s for _, image_s in found)

    def _predict(self, images: Images) -> None:
        top(self._runtime.predict(images), TOP_K).lines()


def sample_file(preprocessing: Preprocessing, *, seed: int = 0) -> bytes:
    """A picture as they may come: a JPEG of 500 x 375, or for small inputs a PNG of their size."""
    height, width = preprocessing.size
    is_small = min(height, width) < SMALL
    grain = np.random.default_rng(seed).integers(0, 256, (*(SMALL_GRAIN if is_small else GRAIN), 3), np.uint8)
    picture = Image.fromarray(grain).resize((width, height) if is_small else PHOTO, Image.Resampling.BICUBIC)
    file = BytesIO()
    picture.save(file, "PNG" if is_small else "JPEG", quality=90)
    return file.getvalue()


def _trials(runtime: Runtime) -> dict[int, float]:
    """Seconds for a batch of each size that may be the best; larger ones than pay are not tried on."""
    trials: dict[int, float] = {}
    for size in BATCH_SIZES if runtime.device == "cpu" else GPU_BATCH_SIZES:
        try:
            _timed(runtime, size)  # the first of a size allocates
            trials[size] = _timed(runtime, size)
        except ModelRunError as exc:
            if not trials:
                raise
            log.info("no batches of %d: %s", size, exc.message)  # a GPU's memory ends
            break
        is_hopeless = trials[size] / size > HOPELESS * min(seconds / of for of, seconds in trials.items())
        if is_hopeless or trials[size] > LONGEST_S:
            break
    return trials


def _timed(runtime: Runtime, size: int) -> float:
    images = np.zeros((size, *runtime.card.preprocessing.size, 3), np.uint8)
    started = time.perf_counter()
    top(runtime.predict(images), TOP_K).lines()
    return time.perf_counter() - started
