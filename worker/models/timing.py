"""How fast loaded models are, on this machine, now."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from worker.models.runtime import Images, Runtime

__all__ = ["Timing", "measure", "measure_side_by_side", "sample_images"]

#: Runs before the timing starts: TorchScript compiles for a shape in its first two.
WARM_UPS = 3


@dataclass(frozen=True)
class Timing:
    """Times of one prediction in seconds, and the batch it was for."""

    batch: int
    seconds: tuple[float, ...]

    @property
    def p50_ms(self) -> float:
        """Median time of one prediction."""
        return 1000 * float(np.median(self.seconds))

    @property
    def p99_ms(self) -> float:
        """99th percentile; with fewer than 100 runs it is near the slowest."""
        return 1000 * float(np.percentile(self.seconds, 99))

    @property
    def images_per_s(self) -> float:
        """Images in a second at the median."""
        return 1000 * self.batch / self.p50_ms


def sample_images(runtime: Runtime, batch: int) -> Images:
    """A batch of noise of the model's size; seeded, so that every run times the same work."""
    height, width = runtime.card.preprocessing.size
    return np.random.default_rng(0).integers(0, 256, (batch, height, width, 3), np.uint8)


def measure(runtime: Runtime, batch: int, *, seconds: float = 0.5, least: int = 5) -> Timing:
    """Time predictions of one batch size for some ``seconds``, at least ``least`` of them, after a warm-up."""
    return measure_side_by_side([runtime], batch, seconds=seconds, least=least)[0]


def measure_side_by_side(
    runtimes: Sequence[Runtime], batch: int, *, seconds: float = 0.5, least: int = 5
) -> list[Timing]:
    """Time several models in turns, so that what else the machine does falls on all of them alike.

    ``seconds`` are for each model.
    """
    images = sample_images(runtimes[0], batch)
    times: list[list[float]] = [[] for _ in runtimes]
    for runtime in runtimes:
        for _ in range(WARM_UPS):
            runtime.predict(images)
    started = time.perf_counter()
    while time.perf_counter() - started < seconds * len(runtimes) or len(times[0]) < least:
        for runtime, own in zip(runtimes, times, strict=True):
            before = time.perf_counter()
            runtime.predict(images)
            own.append(time.perf_counter() - before)
    return [Timing(batch, tuple(own)) for own in times]
