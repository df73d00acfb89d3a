"""``make bench-peers``: the same images and the same ONNX file through other queues, servers and data pipelines.

Everything is a ratio to the bare loop in the same round. Writes ``build/bench/peers.json`` and ``peers.md``.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import psutil
from rich.console import Console

from benchmarks.bare import BareLoop
from benchmarks.images import make_images
from benchmarks.machine import machine
from benchmarks.peers import faults, report
from benchmarks.peers.catalogue import CONTENDERS, IMAGES
from benchmarks.peers.driver import MODELS
from benchmarks.peers.runner import Driver, driver
from benchmarks.peers.venvs import FOLDER, python_of
from benchmarks.peers.work import classify

#: Images of each kind that the bare loop is tuned on.
SAMPLE = {"photo": 200, "tiny": 10_000}
#: Load of the machine (a minute's average) from which on figures are noise.
QUIET = 0.5


def main() -> int:
    """Measure what was asked for; exit code 1 where a contender failed or gave other labels."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.peers", description=__doc__)
    parser.add_argument("peers", nargs="*", metavar="PEER", help=f"of {', '.join(CONTENDERS)}; default: all")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--work", choices=IMAGES, action="append", help="default: both")
    parser.add_argument(
        "--images", type=int, default=0, help="at most so many of each kind: for a trial, not for figures"
    )
    parser.add_argument("--kill", action="store_true", help="also kill -9 a model process in the middle of a run")
    args = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # so that what it started ends with it
    names = args.peers or list(CONTENDERS)
    if unknown := set(names) - set(CONTENDERS):
        parser.error(f"no such peer: {', '.join(sorted(unknown))}")
    for name in names:
        python_of(name, CONTENDERS[name])
    if (load := os.getloadavg()[0]) > QUIET:
        print(f"this machine is busy (load {load:.2f}): its figures are no facts", file=sys.stderr)
    results = _start(names, load)
    for work in args.work or IMAGES:
        Part(work, args.images or IMAGES[work], results).measure(names, args.rounds, args.kill)
        (FOLDER.parent / "peers.json").write_text(json.dumps(results, indent=1))
        (FOLDER.parent / "peers.md").write_text(report.to_markdown(results))
    Console(width=None if sys.stdout.isatty() else 160).print(report.table(results))
    return int(any("failed" in work for one in results["contenders"].values() for work in one["works"].values()))


def _start(names: Sequence[str], load: float) -> dict[str, Any]:
    contenders = {
        name: {
            "title": CONTENDERS[name].title,
            "version": CONTENDERS[name].requirement.partition("==")[2],
            "progress": CONTENDERS[name].progress,
            "works": {},
        }
        for name in names
    }
    here = {**machine(("onnxruntime", "numpy", "pillow")), "load_before": load}
    return {"machine": here, "bare": {}, "contenders": contenders}


class Part:
    """One kind of work: its images, what is right for each, and all contenders on it."""

    def __init__(self, work: str, images: int, results: dict[str, Any]) -> None:
        self.work, self.results = work, results
        folder = make_images(work, min(images, IMAGES[work]))
        self.paths = sorted(str(path) for path in folder.iterdir() if not path.name.startswith("."))
        os.environ.update({"BENCH_MODEL": MODELS[work], "BENCH_BATCH": "4"})
        self.right = classify(self.paths)  # reads each file once, too, so that no round pays for a cold page cache

    def measure(self, names: Sequence[str], rounds: int, kill: bool) -> None:
        """Each contender with the bare loop beside it, one after the other."""
        rates: list[float] = []
        with BareLoop(MODELS[self.work]) as bare:
            bare.tune([Path(path) for path in self.paths[: SAMPLE[self.work]]])
            for name in names:
                rates += self._contender(name, bare, rounds, kill)
        if rates:
            self.results["bare"][self.work] = {"rate": statistics.median(rates), "batch": bare.batch_size}

    def _contender(self, name: str, bare: BareLoop, rounds: int, kill: bool) -> list[float]:
        began = time.perf_counter()
        bare_rates: list[float] = []
        found: dict[str, Any] = {"rates": [], "bare": bare_rates}
        mine = self.results["contenders"][name]
        mine["works"][self.work] = found
        many = min(CONTENDERS[name].images[self.work], len(self.paths))
        found["images"] = many
        try:
            with driver(name, self.work) as peer:
                self._rounds(peer, bare, self.paths[:many], rounds, found)
                found["pss_mb"] = peer.peak_pss_bytes(self.paths[:many]) / 1e6
                if self.work == "photo":
                    self._faults(peer, mine, kill)
        except (RuntimeError, OSError, psutil.Error) as exc:
            found["failed"] = str(exc)
        if found["rates"]:
            found["ratio"] = report.ratio(found["rates"], found["bare"])
            found["rate"] = statistics.median(found["rates"])
        said = {key: found.get(key) for key in ("ratio", "rate", "pss_mb", "failed")}
        print(f"{self.work} {name}: {said}, {time.perf_counter() - began:.0f} s", file=sys.stderr)
        return bare_rates

    def _rounds(
        self, peer: Driver, bare: BareLoop, paths: Sequence[str], rounds: int, found: dict[str, list[float]]
    ) -> None:
        """Rounds of both, each beginning with the other one."""
        peer.warm_up(paths)
        files = [Path(path) for path in self.paths]

        def theirs() -> None:
            run = peer.run(paths)
            self._check(run.answers)
            found["rates"].append(len(paths) / run.seconds)

        def ours() -> None:
            found["bare"].append(len(files) / bare.run(files))

        order: list[Callable[[], None]] = [ours, theirs]
        for number in range(rounds):
            for one in order if number % 2 == 0 else reversed(order):
                one()

    def _check(self, answers: Sequence[Any]) -> None:
        """Raises RuntimeError where an image's labels are not those of the bare loop."""
        for path, answer, right in zip(self.paths, answers, self.right, strict=False):
            if not isinstance(answer, list) or answer[0::2] != right[0::2]:
                raise RuntimeError(f"{Path(path).name}: {answer}, not {right}")

    def _faults(self, peer: Driver, mine: dict[str, Any], kill: bool) -> None:
        """Behind the rounds, as they may leave ruins."""
        broken = faults.broken_among(self.paths, FOLDER / "broken")
        mine["broken"] = faults.one_broken(peer, broken, self.right)
        if kill:
            mine["kill"] = faults.after_kill(peer, self.paths, self.right)


if __name__ == "__main__":
    sys.exit(main())
