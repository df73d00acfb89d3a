"""``labelmill-worker bench``: images/s and latency over batch sizes and threads, and the best setting."""

from __future__ import annotations

import argparse
import json
import os
import time
from dataclasses import dataclass

from jobs.errors import UsageError
from jobs.parser import positive
from worker.models import loader
from worker.models.device import asked_for
from worker.models.flags import add_card_flags, add_device_flag, hand_on, seconds
from worker.models.timing import Timing, measure

__all__ = ["EPILOG", "add_arguments", "run"]

EPILOG = """examples:
  labelmill-worker bench efficientnet-lite0
  labelmill-worker bench cifar10-cnn.pt --batches 1,8,32 --threads 1,2 --seconds 1

the model alone is timed: no fetching, no decoding, no queue
"""
BATCHES = (1, 2, 4, 8, 16, 32)


@dataclass(frozen=True)
class Row:
    """One setting. ``per_core`` is images/s for each thread: what counts where every core runs a process."""

    threads: int
    timing: Timing

    @property
    def per_core(self) -> float:
        """Images/s for each thread."""
        return self.timing.images_per_s / self.threads

    def as_dict(self) -> dict[str, float]:
        """For JSON."""
        return {
            "batch": self.timing.batch,
            "threads": self.threads,
            "images_per_s": round(self.timing.images_per_s, 2),
            "p50_ms": round(self.timing.p50_ms, 3),
            "p99_ms": round(self.timing.p99_ms, 3),
        }


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's arguments."""
    parser.add_argument("file", metavar="FILE", help="a model file, or the name of one in the model folder")
    parser.add_argument("--batches", type=_numbers, default=BATCHES, metavar="N,...", help="default: 1,2,4,8,16,32")
    parser.add_argument(
        "--threads", type=_numbers, metavar="N,...", help="default: 1 and every power of 2 to all cores"
    )
    parser.add_argument("--seconds", type=seconds, default=1.0, help="for each setting (default: 1)")
    add_device_flag(parser)
    parser.add_argument("--json", action="store_true", help="one JSON document")
    parser.add_argument("--compile", action="store_true", help="also a .pt2 compiled by AOTInductor, on 1 thread")
    add_card_flags(parser)


def run(args: argparse.Namespace) -> int:
    """Time every setting and name the best for bulk work and for one image."""
    hand_on(args, [args.file])
    rows: list[Row] = []
    for threads in args.threads or _threads(len(os.sched_getaffinity(0))):
        runtime = loader.load(args.file, threads=threads, device=asked_for(args.device))
        if not rows and not args.json:
            print(f"{'batch':>5} {'threads':>7} {'images/s':>9} {'p50 ms':>8} {'p99 ms':>8}")
        for batch in args.batches:
            rows.append(Row(threads, measure(runtime, batch, seconds=args.seconds)))
            if not args.json:
                print(_line(rows[-1]), flush=True)
    if args.compile:
        _bench_compiled(args)
    bulk = max(rows, key=lambda row: row.per_core)
    single = min((row for row in rows if row.timing.batch == min(args.batches)), key=lambda row: row.timing.p50_ms)
    if args.json:
        found = {"model": args.file, "rows": [row.as_dict() for row in rows]}
        print(json.dumps({**found, "best": bulk.as_dict(), "fastest_answer": single.as_dict()}, indent=2))
        return 0
    print(
        f"best for bulk work: batches of {bulk.timing.batch} on {_said(bulk.threads)}, "
        f"{bulk.per_core:.0f} images/s a core"
    )
    print(f"fastest answer: {_said(single.threads)}, {single.timing.p50_ms:.1f} ms for {single.timing.batch}")
    return 0


def _bench_compiled(args: argparse.Namespace) -> None:
    """The same table for the program compiled ahead of time; its answers are proved first."""
    from worker.export.torch_export import compiled_ahead
    from worker.models import golden
    from worker.models.reader import file_format

    path = loader.resolve(args.file)
    if file_format(path) != "torch_export" or args.json:
        raise UsageError("--compile is for a .pt2 file, and not with --json")
    started = time.perf_counter()
    with compiled_ahead(path) as runtime:
        golden.verify(runtime)
        print(f"compiled ahead of time by AOTInductor in {time.perf_counter() - started:.0f} s, golden sample met")
        for batch in args.batches:
            print(_line(Row(1, measure(runtime, batch, seconds=args.seconds))), flush=True)


def _line(row: Row) -> str:
    timing = row.timing
    figures = f"{timing.images_per_s:>9.1f} {timing.p50_ms:>8.2f} {timing.p99_ms:>8.2f}"
    return f"{timing.batch:>5} {row.threads:>7} {figures}"


def _said(threads: int) -> str:
    return "1 thread" if threads == 1 else f"{threads} threads"


def _threads(cores: int) -> list[int]:
    powers = [2**n for n in range(cores.bit_length()) if 2**n < cores]
    return [*powers, cores]


def _numbers(text: str) -> tuple[int, ...]:
    return tuple(positive(part) for part in text.split(","))
