"""A crew: some workers that are kept at work, whatever happens to them, as a supervisor would."""

from __future__ import annotations

import random
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.chaos.diary import Kill
from tests.support.servers import ProcessGroup, eventually

__all__ = ["Crew"]


class Crew:
    """Workers, each a session of processes. ``enlist(log)`` starts one; ``ready`` is what it prints when it serves."""

    def __init__(self, size: int, enlist: Callable[[Path], ProcessGroup], folder: Path, *, ready: str) -> None:
        self.kills: list[Kill] = []
        #: Workers that ended by themselves.
        self.fallen = 0
        self._enlist = enlist
        self._folder = folder
        self._ready = ready
        self._number = 0
        self._workers = [self._new() for _ in range(size)]

    def ready(self) -> list[ProcessGroup]:
        """Those that serve now."""
        return [worker for worker in self._workers if self._ready in worker.log() and worker.process.poll() is None]

    def wait_ready(self) -> None:
        """Until all of them serve."""
        eventually(lambda: len(self.ready()) == len(self._workers), what="the whole crew is ready")

    def pick(self, rng: random.Random, count: int = 1, *, of: int = 1) -> list[ProcessGroup]:
        """Some that serve, at random, once so many do."""
        least = max(count, of)
        return rng.sample(eventually(lambda: ready if len(ready := self.ready()) >= least else []), count)

    def kill(self, worker: ProcessGroup) -> None:
        """kill -9 for all of one, and another in its place."""
        pids = frozenset(worker.pids())
        self.kills.append(Kill(time.monotonic(), pids))
        worker.kill9()
        self.replace(worker)

    def replace(self, worker: ProcessGroup) -> None:
        """Another in its place."""
        self._workers[self._workers.index(worker)] = self._new()

    def keep_up(self) -> None:
        """Another for each that ended by itself."""
        for worker in list(self._workers):
            if worker.process.poll() is not None:
                self.fallen += 1
                print(f"a worker ended with {worker.process.returncode}:\n{worker.log()}", file=sys.stderr)
                self.replace(worker)

    def dismiss(self) -> None:
        """The end, for all of them at once."""
        for worker in self._workers:
            worker.kill9()

    def _new(self) -> ProcessGroup:
        self._number += 1
        return self._enlist(self._folder / f"worker-{self._number:04}.log")


@contextmanager
def dismissed(crew: Crew) -> Iterator[Crew]:
    """The crew for the block."""
    try:
        yield crew
    finally:
        crew.dismiss()
