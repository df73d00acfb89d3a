"""The client of one contender, in the contender's own environment.

``python -m benchmarks.peers.driver NAME WORK`` starts what serves, and answers on standard output, a line of JSON for
a line of JSON: ``{"paths": [...], "patience_s": 60}`` gives ``{"seconds": ..., "answers": [...]}``. The clock runs from
the first send to the last answer in hand. It ends when its input does.
"""

from __future__ import annotations

import argparse
import importlib
import os
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import orjson

from benchmarks.peers.catalogue import CONTENDERS, Contender
from benchmarks.peers.venvs import FOLDER
from benchmarks.peers.work import Answer
from jobs.orphans import end_with_parent

__all__ = ["MODELS", "Classify", "Setup"]

MODELS = {"photo": "efficientnet-lite0", "tiny": "cifar10-cnn"}
#: Gives an answer for each path, in order; what is not there at the deadline (time.monotonic) is None.
Classify = Callable[[Sequence[str], float], list[Answer]]


@dataclass(frozen=True)
class Setup:
    """What ``serve`` is given. ``folder`` is for sockets, and goes at the end; ``logs`` stays."""

    work: str
    model: str
    processes: int
    batch: int
    chunk: int
    folder: Path
    logs: Path

    @classmethod
    def of(cls, contender: Contender, work: str, folder: Path, logs: Path) -> Setup:
        """For this machine: as many processes as cores."""
        cores = len(os.sched_getaffinity(0))
        return cls(work, MODELS[work], cores, contender.batch[work], contender.chunk[work], folder, logs)

    @property
    def env(self) -> dict[str, str]:
        """What :mod:`benchmarks.peers.work` reads."""
        return {"BENCH_MODEL": self.model, "BENCH_BATCH": str(self.batch)}


def main() -> int:
    """Serve until the input ends."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.peers.driver", description=__doc__)
    parser.add_argument("name", choices=CONTENDERS)
    parser.add_argument("work", choices=MODELS)
    args = parser.parse_args()
    end_with_parent()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # so that what it started ends with it
    out = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # whatever else is printed goes to the log
    contender = CONTENDERS[args.name]
    module = importlib.import_module(f"benchmarks.peers.{contender.module}")
    logs = FOLDER / "logs" / args.name
    logs.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="lm-peer-") as folder:
        setup = Setup.of(contender, args.work, Path(folder), logs)
        os.environ.update(setup.env)
        with module.serve(setup) as classify:
            for line in sys.stdin.buffer:
                out.write(orjson.dumps(_run(classify, **orjson.loads(line))) + b"\n")
                out.flush()
    return 0


def _run(classify: Classify, paths: list[str], patience_s: float) -> dict[str, object]:
    began = time.perf_counter()
    answers = classify(paths, time.monotonic() + patience_s)
    return {"seconds": time.perf_counter() - began, "answers": answers}


if __name__ == "__main__":
    sys.exit(main())
