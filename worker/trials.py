"""Trials: a worker's own work, on as many streams as a setting has, for a moment each.

All settings stand ready before the first is timed, and take turns, so that what else the machine does meanwhile falls
on all of them alike. Run in a process of its own: it loads the model.
"""

from __future__ import annotations

import multiprocessing
import statistics
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from io import BytesIO
from multiprocessing.connection import Connection
from typing import Any, Protocol

import numpy as np
from PIL import Image

from worker.decode import DecodeLimits, decode_into
from worker.engine import top
from worker.models import loader
from worker.models.card import Preprocessing
from worker.models.runtime import Runtime
from worker.tuning import Plan, Trial
from worker.warm import TOP_K, warm_up

__all__ = ["make_plan", "sample_file", "settings_of"]

#: Rounds, and seconds of each setting in a round.
ROUNDS, TURN_S = 5, 0.15
#: A setting other than one process a core, one thread each, must be this much faster, in every round, to be taken:
#: processes are ended one by one where one hangs or dies, and what is measured for a moment may be luck.
WORTH_IT = 1.1
#: (width, height) in pixels of the picture that is decoded, and its smallest input's.
PHOTO, SMALL = (500, 375), 64


class Streams(Protocol):
    """Streams of one setting, ready to run."""

    def run(self, seconds: float) -> float:
        """Images/s of all of them together."""


def settings_of(cores: int) -> list[tuple[str, int, int]]:
    """``(pool, streams, threads)`` worth a trial; the first is what is taken unless another is much faster."""
    found = [("prefork", cores, 1)]
    if cores > 1:
        found += [("threads", cores, 1), ("prefork", 1, cores)]
    if cores >= 4:
        found.append(("prefork", cores // 2, 2))
    return found


def make_plan(model: str, cores: int) -> Plan:
    """Measure every setting; takes a few seconds."""
    batches: dict[int, int] = {}
    rates: dict[tuple[str, int, int], list[float]] = {}
    with ExitStack() as stack:
        ready: list[tuple[tuple[str, int, int], Streams]] = []
        for setting in settings_of(cores):
            pool, streams, threads = setting
            runtime = loader.load(model, threads=threads)
            size = batches.setdefault(threads, warm_up(runtime)[0])
            if pool == "threads":
                ready.append((setting, _Threads(runtime, streams, size)))
            else:
                ready.append((setting, stack.enter_context(_processes(model, streams, threads, size))))
        for _ in range(ROUNDS):
            for setting, one in ready:
                rates.setdefault(setting, []).append(one.run(TURN_S))
    return Plan(*_judged(rates, batches))


def _judged(
    rates: Mapping[tuple[str, int, int], Sequence[float]], batches: Mapping[int, int]
) -> tuple[Trial, tuple[Trial, ...]]:
    """The best trial, and all of them at their medians."""
    trials = {
        setting: Trial(*setting, batch_size=batches[setting[2]], images_per_s=round(statistics.median(found), 1))
        for setting, found in rates.items()
    }
    usual = next(iter(rates))
    better = [usual]
    for setting, found in rates.items():
        if all(one > WORTH_IT * other for one, other in zip(found, rates[usual], strict=True)):
            better.append(setting)
    best = max(better, key=lambda setting: trials[setting].images_per_s)
    return trials[best], tuple(trials.values())


def sample_file(preprocessing: Preprocessing) -> bytes:
    """A picture as they may come: a JPEG of 500 x 375, or for small inputs a PNG of their size."""
    height, width = preprocessing.size
    is_small = min(height, width) < SMALL
    grain = np.random.default_rng(0).integers(0, 256, (24, 32, 3), np.uint8)
    picture = Image.fromarray(grain).resize((width, height) if is_small else PHOTO, Image.Resampling.BICUBIC)
    file = BytesIO()
    picture.save(file, "PNG" if is_small else "JPEG", quality=90)
    return file.getvalue()


class _Stream:
    """One stream's work, again and again."""

    def __init__(self, runtime: Runtime, batch_size: int) -> None:
        self._runtime = runtime
        self._preprocessing = runtime.card.preprocessing
        self._file = sample_file(self._preprocessing)
        self._batch = np.zeros((batch_size, *self._preprocessing.size, 3), np.uint8)
        self.run(0.0)

    def run(self, seconds: float) -> float:
        """Images/s."""
        done, began = 0, time.perf_counter()
        while True:
            for place in self._batch:
                decode_into(self._file, place, self._preprocessing, DecodeLimits())
            top(self._runtime.predict(self._batch), TOP_K).lines()
            done += len(self._batch)
            if (taken := time.perf_counter() - began) >= seconds:
                return done / taken


class _Threads:
    def __init__(self, runtime: Runtime, streams: int, batch_size: int) -> None:
        self._streams = [_Stream(runtime, batch_size) for _ in range(streams)]

    def run(self, seconds: float) -> float:
        """Images/s of all of them together."""
        rates: list[float] = []
        threads = [
            threading.Thread(target=lambda stream=stream: rates.append(stream.run(seconds))) for stream in self._streams
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return sum(rates)


class _Processes:
    def __init__(self, pipes: Sequence[Connection]) -> None:
        self._pipes = pipes

    def run(self, seconds: float) -> float:
        """Images/s of all of them together."""
        for pipe in self._pipes:
            pipe.send(seconds)
        return float(sum(pipe.recv() for pipe in self._pipes))


@contextmanager
def _processes(model: str, streams: int, threads: int, batch_size: int) -> Iterator[_Processes]:
    """Processes with a loaded model each, that wait between their turns."""
    context = multiprocessing.get_context("spawn")
    pipes: list[Connection] = []
    children: list[Any] = []
    try:
        for _ in range(streams):
            ours, theirs = context.Pipe()
            child = context.Process(target=_child, args=(theirs, model, threads, batch_size), daemon=True)
            child.start()
            theirs.close()  # so that a child that dies is an end of file, and not a wait for ever
            pipes.append(ours)
            children.append(child)
        for pipe in pipes:
            pipe.recv()
        yield _Processes(pipes)
    finally:
        for pipe in pipes:
            pipe.close()
        for child in children:
            child.join()


def _child(pipe: Connection, model: str, threads: int, batch_size: int) -> None:
    stream = _Stream(loader.load(model, threads=threads), batch_size)
    pipe.send("ready")
    while True:
        try:
            seconds = pipe.recv()
        except EOFError:
            return
        pipe.send(stream.run(seconds))
