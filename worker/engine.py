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

#: Scores that are ranked at once: as many as a core's cache holds while they are sorted.
RANKED_VALUES = 1 << 14


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

    def run(
        self,
        items: Sequence[Item],
        fetch: Callable[[str], bytes],
        *,
        top_k: int,
        decoded: Callable[[], None] = lambda: None,
    ) -> ChunkResult:
        """Classify items; every one gets a line, in order. ``fetch`` gives the bytes of a reference.

        ``decoded`` is called before each prediction; what it raises ends the run.
        """
        spent = Spent()
        errors: dict[int, LabelmillError] = {}
        good = _Lines(top_k)
        batch = self._room(len(items))
        for start in range(0, len(items), self.batch_size):
            few = items[start : start + self.batch_size]
            images = batch[: self._decoded(start, few, batch, fetch, errors, spent)]
            decoded()
            if not len(images):
                continue
            try:
                good.add(self._predict(images, spent))
            except ModelRunError as exc:
                log.warning("the model raised on a batch of %d (%s): item by item", len(images), exc.message)
                here = (place for place in range(start, start + len(few)) if place not in errors)
                self._predict_apart(list(here), images, good, errors, spent)
        lines = good.joined()
        if errors:
            found = iter(lines.split(b"\n"))
            lines = b"\n".join(
                encode_failure(errors[place]) if place in errors else next(found) for place in range(len(items))
            )
        return ChunkResult(lines, len(items) - len(errors), len(errors), spent)

    def _room(self, items: int) -> Images:
        """Where the images of a batch go, one batch after the other."""
        size = self.runtime.card.preprocessing.size if self.runtime.decodes else (1, 1)
        return np.zeros((min(items, self.batch_size), *size, 3), np.uint8)

    def _decoded(
        self,
        start: int,
        items: Sequence[Item],
        batch: Images,
        fetch: Callable[[str], bytes],
        errors: dict[int, LabelmillError],
        spent: Spent,
    ) -> int:
        """Put the images of items, the first of which is at ``start``, into ``batch``, without gaps; how many."""
        if not self.runtime.decodes:
            return len(items)
        good = 0
        fetch_s = decode_s = 0.0
        for place, item in enumerate(items, start):
            began = perf_counter()
            try:
                try:
                    data = fetch(item.ref)
                finally:
                    fetched = perf_counter()
                self.decode(data, batch[good])
                good += 1
            except ItemError as exc:
                errors[place] = exc
            fetch_s += fetched - began
            decode_s += perf_counter() - fetched
        spent.fetch_s += fetch_s
        spent.decode_s += decode_s
        return good

    def _predict_apart(
        self, places: Sequence[int], images: Images, good: _Lines, errors: dict[int, LabelmillError], spent: Spent
    ) -> None:
        """Image by image, so that those on which the model does not raise have their scores."""
        for place, image in zip(places, images, strict=True):
            try:
                good.add(self._predict(image[np.newaxis], spent))
            except ModelRunError as exc:
                errors[place] = exc

    def _predict(self, images: Images, spent: Spent) -> Scores:
        began = perf_counter()
        scores = self.runtime.predict(images)
        spent.predict_s += perf_counter() - began
        spent.batches.append(len(images))
        if len(scores) != len(images):
            raise ModelRunError(f"the model gave {len(scores)} answers for {len(images)} images")
        return scores


class _Lines:
    """The result lines of a chunk. Scores are ranked many at a time: NumPy's calls cost more than their work on few."""

    def __init__(self, top_k: int) -> None:
        self._top_k = top_k
        self._blocks: list[bytes] = []
        self._unranked: list[Scores] = []
        self._values = 0

    def add(self, scores: Scores) -> None:
        """Those of the next images."""
        self._unranked.append(scores)
        self._values += scores.size
        if self._values >= RANKED_VALUES:
            self._rank()

    def joined(self) -> bytes:
        """One line for each image so far."""
        if self._unranked:
            self._rank()
        return b"\n".join(self._blocks)

    def _rank(self) -> None:
        scores = self._unranked[0] if len(self._unranked) == 1 else np.concatenate(self._unranked)
        self._blocks.append(top(scores, self._top_k).lines())
        self._unranked, self._values = [], 0
