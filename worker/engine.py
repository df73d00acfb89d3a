"""The engine: one warm model that turns items into result lines, batch by batch.

It knows no Celery and no Redis. Bad items are split from good ones, and never fail their neighbours.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cache
from time import perf_counter

import numpy as np
import orjson
from numpy.typing import NDArray

from jobs.errors import ItemError, LabelmillError, ModelRunError
from jobs.items import SCORE_UNITS, Item, encode_failure
from worker.models.runtime import Images, Runtime, Scores

__all__ = ["ChunkResult", "Engine", "Predictions", "Spent", "top"]

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Predictions:
    """The most likely classes: ``indices`` int64[N, k] and ``units`` int64[N, k] (scores x SCORE_UNITS), best first."""

    indices: NDArray[np.int64]
    units: NDArray[np.int64]

    def lines(self) -> bytes:
        """One result line for each image, see :mod:`jobs.items`."""
        flat = np.empty((len(self.indices), 2 * self.indices.shape[1]), np.int64)
        flat[:, 0::2], flat[:, 1::2] = self.indices, self.units
        return orjson.dumps(flat, option=orjson.OPT_SERIALIZE_NUMPY)[1:-1].replace(b"],[", b"]\n[")


@dataclass
class Spent:
    """Where the time of a run went, in seconds, and the sizes of its batches."""

    fetch_s: float = 0.0
    decode_s: float = 0.0
    predict_s: float = 0.0
    batches: list[int] = field(default_factory=list)


@dataclass(frozen=True)
class ChunkResult:
    """``lines``: one for each item, in order, joined by newlines."""

    lines: bytes
    succeeded: int
    failed: int
    spent: Spent = field(default_factory=Spent, compare=False)


def top(scores: Scores, k: int) -> Predictions:
    """The ``k`` largest scores of each row, ordered by rounded score and then by index.

    The order is taken after rounding, so that noise in the last bits never swaps two lines.
    """
    classes = scores.shape[1]
    k = min(k, classes)
    keys = np.rint(scores * np.float64(SCORE_UNITS)).astype(np.int64)
    keys *= classes
    keys += _backwards(classes)  # now they are unique, so the order is too
    if k < classes:
        keys.partition(classes - k, axis=1)
        keys = keys[:, classes - k :]
    keys.sort(axis=1)
    units, rest = np.divmod(keys[:, ::-1], classes)
    return Predictions(indices=classes - 1 - rest, units=units)


@cache
def _backwards(classes: int) -> NDArray[np.int64]:
    return np.arange(classes - 1, -1, -1)


class Engine:
    """A loaded model, the decoding that belongs to it, and its best batch size.

    ``decode(data, out)`` writes an image file's pixels into ``out``, its place in a batch: ``uint8[H, W, 3]``.
    """

    def __init__(self, runtime: Runtime, decode: Callable[[bytes, Images], None], *, batch_size: int = 4) -> None:
        self.runtime = runtime
        self.decode = decode
        self.batch_size = batch_size

    def run(self, items: Sequence[Item], fetch: Callable[[str], bytes], *, top_k: int) -> ChunkResult:
        """Classify items; every one gets a line, in order. ``fetch`` gives the bytes of a reference."""
        lines: list[bytes] = []
        failed = 0
        spent = Spent()
        batch = self._room(len(items))
        for start in range(0, len(items), self.batch_size):
            block, bad = self._run_batch(items[start : start + self.batch_size], batch, fetch, top_k, spent)
            lines.append(block)
            failed += bad
        return ChunkResult(b"\n".join(lines), len(items) - failed, failed, spent)

    def _room(self, items: int) -> Images:
        """Where the images of a batch go, one batch after the other."""
        size = self.runtime.card.preprocessing.size if self.runtime.decodes else (1, 1)
        return np.zeros((min(items, self.batch_size), *size, 3), np.uint8)

    def _run_batch(
        self, items: Sequence[Item], batch: Images, fetch: Callable[[str], bytes], top_k: int, spent: Spent
    ) -> tuple[bytes, int]:
        if not self.runtime.decodes:
            return self._predict(batch[: len(items)], top_k, spent).lines(), 0
        good = 0
        errors: dict[int, LabelmillError] = {}
        for position, item in enumerate(items):
            began = fetched = perf_counter()
            try:
                data = fetch(item.ref)
                fetched = perf_counter()
                self.decode(data, batch[good])
                good += 1
            except ItemError as exc:
                errors[position] = exc
            ended = perf_counter()
            spent.fetch_s += fetched - began
            spent.decode_s += ended - fetched
        outcomes = self._outcomes(batch[:good], top_k, spent)
        if not errors and isinstance(outcomes, bytes):
            return outcomes, 0
        found = iter(outcomes.split(b"\n") if isinstance(outcomes, bytes) else outcomes)
        lines = [errors[i] if i in errors else next(found) for i in range(len(items))]
        failures = sum(not isinstance(line, bytes) for line in lines)
        return b"\n".join(line if isinstance(line, bytes) else encode_failure(line) for line in lines), failures

    def _outcomes(self, images: Images, top_k: int, spent: Spent) -> bytes | list[bytes | LabelmillError]:
        """The result lines of decoded images; where the model raises, item by item."""
        if not len(images):
            return []
        try:
            return self._predict(images, top_k, spent).lines()
        except ModelRunError as exc:
            log.warning("the model raised on a batch of %d (%s): item by item", len(images), exc.message)
        outcomes: list[bytes | LabelmillError] = []
        for image in images:
            try:
                outcomes.append(self._predict(image[np.newaxis], top_k, spent).lines())
            except ModelRunError as exc:
                outcomes.append(exc)
        return outcomes

    def _predict(self, images: Images, top_k: int, spent: Spent) -> Predictions:
        began = perf_counter()
        scores = self.runtime.predict(images)
        spent.predict_s += perf_counter() - began
        spent.batches.append(len(images))
        if len(scores) != len(images):
            raise ModelRunError(f"the model gave {len(scores)} answers for {len(images)} images")
        return top(scores, top_k)
