"""The bare loop: read, decode, predict, in as many processes as there are cores, and no queue.

It is the limit that everything else is held against, so it is as good as we can make it: the decoding of our workers,
one session of one thread to each core, images handed out as they are needed, and the batch size that was fastest here.
"""

from __future__ import annotations

import math
import multiprocessing
import os
import statistics
import time
from collections.abc import Sequence
from multiprocessing.connection import Connection
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

__all__ = ["BATCH_SIZES", "BareLoop", "read_file"]

BATCH_SIZES = (1, 2, 4, 8, 16, 32, 64)
#: Those that are compared for longer: their rates lie too near to each other for a short look.
FINALISTS = 3
#: Towards the end a process takes fewer images at once, so that all end together: one of so many shares, for each of
#: them, of what is left.
SHARES = 2
#: Labels of each image that are ranked, as in a job.
TOP_K = 5


class BareLoop:
    """Processes that wait with a warm model between ``with`` and its end."""

    def __init__(self, model: str, *, processes: int | None = None, batch_size: int = 0) -> None:
        self.model = model
        self.processes = processes or len(os.sched_getaffinity(0))
        self.batch_size = batch_size
        #: At that batch size, as :meth:`tune` has found.
        self.images_per_s = 0.0

    def __enter__(self) -> BareLoop:
        context = multiprocessing.get_context("spawn")
        self._next = context.Value("q", 0)
        self._pipes: list[Connection] = []
        self._children: list[Any] = []
        for _ in range(self.processes):
            ours, theirs = context.Pipe()
            child = context.Process(target=_child, args=(theirs, self._next, self.model), daemon=True)
            child.start()
            self._pipes.append(ours)
            self._children.append(child)
        for pipe in self._pipes:
            pipe.recv()
        return self

    def __exit__(self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None) -> None:
        for pipe in self._pipes:
            pipe.send(None)
        for child in self._children:
            child.join()

    def like(self) -> BareLoop:
        """Another one, with processes of its own."""
        return BareLoop(self.model, processes=self.processes, batch_size=self.batch_size)

    @property
    def pids(self) -> list[int]:
        """Ids of its processes."""
        return [child.pid for child in self._children]

    def tune(self, paths: Sequence[Path], *, rounds: int = 5) -> dict[int, float]:
        """Find the batch size with the highest median rate, and keep it; returns images/s of the best by batch size.

        All are tried on half of the images, and the :data:`FINALISTS` on all of them.
        """
        rates = self._rates(BATCH_SIZES, paths[: -(-len(paths) // 2)], 3)
        finalists = sorted(rates, key=rates.__getitem__)[-FINALISTS:]
        rates = self._rates(finalists, paths, rounds)
        self.batch_size = max(rates, key=rates.__getitem__)
        self.images_per_s = rates[self.batch_size]
        return rates

    def _rates(self, sizes: Sequence[int], paths: Sequence[Path], rounds: int) -> dict[int, float]:
        """Images/s by batch size, medians; each once a round."""
        rates: dict[int, list[float]] = {size: [] for size in sizes}
        for _ in range(rounds):
            for size, found in rates.items():
                found.append(len(paths) / self.run(paths, batch_size=size))
        return {size: statistics.median(found) for size, found in rates.items()}

    def run(self, paths: Sequence[Path], *, batch_size: int = 0) -> float:
        """Seconds to classify all of them."""
        names = [str(path) for path in paths]
        for pipe in self._pipes:
            pipe.send((names, batch_size or self.batch_size, self.processes))
        for pipe in self._pipes:
            pipe.recv()
        self._next.value = 0
        began = time.perf_counter()
        for pipe in self._pipes:
            pipe.send("go")
        done = sum(pipe.recv() for pipe in self._pipes)
        took = time.perf_counter() - began
        assert done == len(paths)
        return took


def _child(pipe: Connection, position: Any, model: str) -> None:
    from worker.decode import DecodeLimits, decode_into
    from worker.engine import TOGETHER, top
    from worker.models import loader
    from worker.rooms import room

    runtime = loader.load(model)
    preprocessing, limits = runtime.card.preprocessing, DecodeLimits()
    runtime.predict(np.zeros((1, *preprocessing.size, 3), np.uint8))
    pipe.send("warm")
    while (work := pipe.recv()) is not None:
        names, size, processes = work
        # read and decoded in one go, and then predicted batch by batch, as in a worker
        most = max(size, TOGETHER // (math.prod(preprocessing.size) * 3) // size * size)
        images = room("images", most, *preprocessing.size, 3, dtype=np.uint8, kept=TOGETHER)
        pipe.send("ready")
        pipe.recv()
        done, scores = 0, []
        while True:
            with position.get_lock():
                start = position.value
                share = (len(names) - start) // (SHARES * processes)
                stop = start + min(most, max(size, share // size * size))
                position.value = stop
            part = names[start:stop]
            if not part:
                break
            for at in range(0, len(part), size):  # going from one to the other and back costs what the caches held
                for place, data in enumerate([read_file(name) for name in part[at : at + size]], at):
                    decode_into(data, images[place], preprocessing, limits)
            for at in range(0, len(part), size):
                scores.append(runtime.predict(images[at : min(at + size, len(part))]))
            done += len(part)
        if scores:
            top(np.concatenate(scores), TOP_K)
        pipe.send(done)


def read_file(name: str) -> bytes:
    """The bytes of a file, at half the cost of ``open``."""
    file = os.open(name, os.O_RDONLY)
    try:
        return os.read(file, os.fstat(file).st_size)
    finally:
        os.close(file)
