"""Trials: a worker's own work, on as many streams as a setting has, for a moment each.

All settings stand ready before the first is timed, and take turns, so that what else the machine does meanwhile falls
on all of them alike. Run in a process of its own: it loads the model.
"""

from __future__ import annotations

import logging
import multiprocessing
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from multiprocessing.connection import Connection
from typing import Any, Protocol

from jobs.errors import LabelmillError, ModelUnsupportedError
from worker.models import loader
from worker.models.runtime import Runtime
from worker.pace import Work, choice, compared, near, predicting
from worker.tuning import Plan, Trial

__all__ = ["make_plan", "settings_of"]

log = logging.getLogger(__name__)

#: Rounds, and seconds of each setting, or batch size, in a round.
ROUNDS, TURN_S = 5, 0.15
#: Seconds in which the predictions of batch sizes are timed, for the few that are compared on the whole work: beside
#: decoding and other streams, which take the caches, other sizes may be better.
BATCH_S = 0.5
#: A setting other than one process a core, one thread each, must be this much faster, in every round, to be taken:
#: processes are ended one by one where one hangs or dies, and what is measured for a moment may be luck.
WORTH_IT = 1.1
#: Processes at most that are tried on one GPU: each has a context of its own there, of some hundred megabytes.
MOST_ON_GPU = 16


class Streams(Protocol):
    """Streams of one setting, ready to run."""

    def run(self, size: int, seconds: float) -> float:
        """Images/s of all of them together, in batches of a size."""


class _CannotStandReadyError(Exception):
    """The streams of one setting cannot be had."""


def settings_of(cores: int, device: str = "cpu") -> list[tuple[str, int, int]]:
    """``(pool, streams, threads)`` worth a trial; the first is what is taken unless another is much faster.

    On a GPU a stream's own work is decoding, and one thread of its model is enough.
    """
    if device != "cpu":
        most = min(cores, MOST_ON_GPU)
        fewer = [("prefork", most // 2, 1)] if most >= 4 else []
        return [("prefork", most, 1), *([("threads", most, 1)] if most > 1 else []), *fewer]
    found = [("prefork", cores, 1)]
    if cores > 1:
        found += [("threads", cores, 1), ("prefork", 1, cores)]
    if cores >= 4:
        found.append(("prefork", cores // 2, 2))
    return found


def make_plan(model: str, cores: int, device: str = "cpu") -> Plan:
    """Measure every setting that can be had; takes some seconds. Raises :class:`~jobs.errors.ModelFileError`."""
    runtime = loader.load(model, device=device)
    settings = settings_of(cores, runtime.device)
    alone = {1: predicting(runtime, seconds=BATCH_S)}
    for threads in sorted({threads for _, _, threads in settings} - {1}):
        alone[threads] = predicting(loader.load(model, threads=threads, device=device), seconds=BATCH_S)
    if len(alone) > 1:
        runtime = loader.load(model, device=device)  # torch has one number of threads, that of the last load
    sizes = near(alone[1])  # that of other settings may be a little off: they must be much faster anyway
    batches = {threads: choice(found) for threads, found in alone.items()}
    with ExitStack() as stack:
        ready = {
            setting: streams
            for setting in settings
            if (streams := _ready(stack, setting, runtime, (model, device, max(batches[setting[2]], *sizes))))
            is not None
        }
        if not ready:
            raise ModelUnsupportedError(f"{model}: no process or thread could compute with it on {runtime.device}")
        if usual := next((streams for setting, streams in ready.items() if setting[2] == 1), None):
            batches[1] = choice(compared(usual.run, sizes, rounds=ROUNDS, turn_s=TURN_S))
        rates: dict[tuple[str, int, int], list[float]] = {setting: [] for setting in ready}
        for _ in range(ROUNDS):
            for setting, streams in ready.items():
                rates[setting].append(streams.run(batches[setting[2]], TURN_S))
    return Plan(*_judged(rates, batches), runtime.device)


def _ready(
    stack: ExitStack, setting: tuple[str, int, int], runtime: Runtime, told: tuple[str, str, int]
) -> Streams | None:
    """The streams of a setting; None where they cannot be had, as where a GPU's memory ends."""
    pool, streams, threads = setting
    model, device, most = told
    try:
        if pool == "threads":
            return _Threads(runtime, streams, most)
        return stack.enter_context(_processes(streams, (model, device, threads, most)))
    except (_CannotStandReadyError, LabelmillError) as exc:
        log.warning("%d streams of the %s pool are left out: %s", streams, pool, exc)
        return None


def _judged(
    rates: Mapping[tuple[str, int, int], Sequence[float]], batches: Mapping[int, int]
) -> tuple[Trial, tuple[Trial, ...]]:
    """The best trial, and all of them at their fastest rounds, so that what else the machine did decides nothing."""
    trials = {
        setting: Trial(*setting, batch_size=batches[setting[2]], images_per_s=round(max(found), 1))
        for setting, found in rates.items()
    }
    usual = next(iter(rates))
    better = [usual]
    for setting, found in rates.items():
        if all(one > WORTH_IT * other for one, other in zip(found, rates[usual], strict=True)):
            better.append(setting)
    best = max(better, key=lambda setting: trials[setting].images_per_s)
    return trials[best], tuple(trials.values())


def _stream(runtime: Runtime, most: int) -> Work:
    work = Work(runtime, most)
    work.limit(TURN_S)
    return work


class _Threads:
    def __init__(self, runtime: Runtime, streams: int, most: int) -> None:
        self._streams = [_stream(runtime, most) for _ in range(streams)]

    def run(self, size: int, seconds: float) -> float:
        """Images/s of all of them together."""
        rates: list[float] = []
        threads = [
            threading.Thread(target=lambda stream=stream: rates.append(stream.run(size, seconds)))
            for stream in self._streams
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return sum(rates)


class _Processes:
    def __init__(self, pipes: Sequence[Connection]) -> None:
        self._pipes = pipes

    def run(self, size: int, seconds: float) -> float:
        """Images/s of all of them together."""
        for pipe in self._pipes:
            pipe.send((size, seconds))
        return float(sum(pipe.recv() for pipe in self._pipes))


@contextmanager
def _processes(streams: int, told: tuple[str, str, int, int]) -> Iterator[_Processes]:
    """Processes with a loaded model each, that wait between their turns.

    ``told`` is the model, the device, the threads of one prediction and the largest batch.
    """
    context = multiprocessing.get_context("spawn")
    pipes: list[Connection] = []
    children: list[Any] = []
    try:
        for _ in range(streams):
            ours, theirs = context.Pipe()
            child = context.Process(target=_child, args=(theirs, *told), daemon=True)
            child.start()
            theirs.close()  # so that a child that dies is an end of file, and not a wait for ever
            pipes.append(ours)
            children.append(child)
        for pipe in pipes:
            _wait_for(pipe)
        yield _Processes(pipes)
    finally:
        for pipe in pipes:
            pipe.close()
        for child in children:
            child.join()


def _wait_for(pipe: Connection) -> None:
    try:
        said = pipe.recv()
    except EOFError:
        raise _CannotStandReadyError("a process died as it loaded the model") from None
    if said:
        raise _CannotStandReadyError(said)


def _child(pipe: Connection, model: str, device: str, threads: int, most: int) -> None:
    try:
        stream = _stream(loader.load(model, threads=threads, device=device), most)
    except LabelmillError as exc:
        pipe.send(exc.message)
        return
    pipe.send("")
    while True:
        try:
            turn = pipe.recv()
        except EOFError:
            return
        pipe.send(stream.run(*turn))
