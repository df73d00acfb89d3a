"""The engine: one warm model that turns references into result lines, batch by batch.

It knows no Celery and no Redis. Bad items are split from good ones, and never fail their neighbours.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cache
from time import perf_counter

import numpy as np
import orjson
from numpy.typing import NDArray

from jobs.errors import ItemError, LabelmillError, ModelRunError
from jobs.items import SCORE_UNITS, encode_failure
from worker.models.runtime import Images, Runtime, Scores
from worker.rooms import room

__all__ = ["TOGETHER", "UNBOUNDED", "Budget", "ChunkResult", "Engine", "Predictions", "Spent", "top"]

log = logging.getLogger(__name__)

#: Scores that are ranked at once: as many as a core's cache holds while they are sorted.
RANKED_VALUES = 1 << 14
#: Bytes of images that are decoded in one go, before the first of them is predicted; a batch at the least.
TOGETHER = 8 << 20
#: Bytes of files of a batch that are read before the first of them is decoded: what a core's cache holds.
READ_BYTES = 1 << 18


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


class Budget:
    """The time that a run may take; this one has no end."""

    def late_to_decode(self) -> LabelmillError | None:
        """The error of what was read, and is not decoded in time; None where it is."""
        return None

    def late_to_predict(self) -> LabelmillError | None:
        """The error of what was decoded, and is not predicted in time; None where it is."""
        return None


UNBOUNDED = Budget()


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
        refs: Sequence[str],
        fetch: Callable[[str], bytes],
        *,
        top_k: int,
        waits: bool = False,
        decoded: Callable[[], None] = lambda: None,
        budget: Budget = UNBOUNDED,
    ) -> ChunkResult:
        """Classify the items with these references; each gets a line, in order. ``fetch`` gives the bytes of one.

        As many are decoded in one go as :data:`TOGETHER` holds, and then predicted batch by batch: going from one to
        the other and back costs what the caches held. So does going from reading to decoding: files are read
        :data:`READ_BYTES` at a time. Neither where ``fetch`` waits for other machines: meanwhile what is there is
        decoded, and predicted. ``decoded`` is called before each batch that is predicted, and between those that are
        decoded; what it raises ends the run. ``budget`` is asked before each image that is decoded, and before each
        batch that is predicted, but the first: what it gives is the error of those that have come no further.
        """
        return _Run(self, refs, fetch, top_k=top_k, waits=waits, decoded=decoded, budget=budget).result()


class _Run:
    """One run, see :meth:`Engine.run`. Items are known by their places in it."""

    def __init__(
        self,
        engine: Engine,
        refs: Sequence[str],
        fetch: Callable[[str], bytes],
        *,
        top_k: int,
        waits: bool,
        decoded: Callable[[], None],
        budget: Budget,
    ) -> None:
        self._runtime, self._decode, self._batch_size = engine.runtime, engine.decode, engine.batch_size
        self._refs, self._fetch = refs, fetch
        self._waits, self._decoded, self._budget = waits, decoded, budget
        self._spent = Spent()
        self._errors: dict[int, LabelmillError] = {}
        self._good = _Lines(top_k)

    def result(self) -> ChunkResult:
        """Of all items."""
        refs, errors, images = self._refs, self._errors, self._room()
        for start in range(0, len(refs), len(images)):
            places = self._fill(images, range(start, min(start + len(images), len(refs))))
            for at in range(0, len(places), self._batch_size):
                if (start or at) and (error := self._budget.late_to_predict()):
                    errors |= dict.fromkeys(places[at:], error)
                    break
                few = places[at : at + self._batch_size]
                self._decoded()
                self._classify(few, images[at : at + len(few)])
        lines = self._good.joined()
        if errors:
            found = iter(lines.split(b"\n"))
            lines = b"\n".join(
                encode_failure(errors[place]) if place in errors else next(found) for place in range(len(refs))
            )
        return ChunkResult(lines, len(refs) - len(errors), len(errors), self._spent)

    def _room(self) -> Images:
        """Where the images go that are decoded in one go; at least one."""
        size = (*self._runtime.card.preprocessing.size, 3) if self._runtime.decodes else (1, 1, 3)
        batches = 1 if self._waits else max(1, TOGETHER // (math.prod(size) * self._batch_size))
        count = max(1, min(len(self._refs), batches * self._batch_size))
        return room("images", count, *size, dtype=np.uint8, kept=TOGETHER)

    # -- reading and decoding -------------------------------------------------------------------------

    def _fill(self, images: Images, few: Sequence[int]) -> Sequence[int]:
        """Decode these items into ``images``, without gaps; the places of those that are there."""
        if not self._runtime.decodes:
            return few
        places: list[int] = []
        for at in range(0, len(few), self._batch_size):
            if at:
                self._decoded()
            for files in self._read(few[at : at + self._batch_size]):
                began = perf_counter()
                for place, data in files:
                    if place and (error := self._budget.late_to_decode()):
                        self._errors[place] = error
                        continue
                    try:
                        self._decode(data, images[len(places)])
                        places.append(place)
                    except ItemError as exc:
                        self._errors[place] = exc
                self._spent.decode_s += perf_counter() - began
        return places

    def _read(self, few: Sequence[int]) -> Iterator[list[tuple[int, bytes]]]:
        """These items with their bytes, as many at once as have :data:`READ_BYTES`; one where ``fetch`` waits."""
        most = 1 if self._waits else READ_BYTES
        files: list[tuple[int, bytes]] = []
        size, began = 0, perf_counter()
        for place in few:
            try:
                data = self._fetch(self._refs[place])
            except ItemError as exc:
                self._errors[place] = exc
                continue
            files.append((place, data))
            size += len(data)
            if size >= most:
                self._spent.fetch_s += perf_counter() - began
                yield files
                files.clear()  # before the next are read
                size, began = 0, perf_counter()
        self._spent.fetch_s += perf_counter() - began
        yield files

    # -- predicting -----------------------------------------------------------------------------------

    def _classify(self, places: Sequence[int], images: Images) -> None:
        try:
            self._good.add(self._predict(images))
        except ModelRunError as exc:
            log.warning("the model raised on a batch of %d (%s): item by item", len(images), exc.message)
            self._predict_apart(places, images)

    def _predict_apart(self, places: Sequence[int], images: Images) -> None:
        """Image by image, so that those on which the model does not raise have their scores."""
        for place, image in zip(places, images, strict=True):
            try:
                self._good.add(self._predict(image[np.newaxis]))
            except ModelRunError as exc:
                self._errors[place] = exc

    def _predict(self, images: Images) -> Scores:
        began = perf_counter()
        scores = self._runtime.predict(images)
        self._spent.predict_s += perf_counter() - began
        self._spent.batches.append(len(images))
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
