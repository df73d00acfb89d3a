"""``labelmill-worker check``: whether a worker could serve this file on this machine."""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from typing import TypeVar

import numpy as np

from jobs.parser import positive
from worker.models import golden, loader
from worker.models.device import asked_for
from worker.models.flags import add_card_flags, add_device_flag, hand_on
from worker.models.runtime import Runtime

__all__ = ["EPILOG", "add_arguments", "run"]

T = TypeVar("T")
EPILOG = """examples:
  labelmill-worker check efficientnet-lite0
  labelmill-worker check plain.onnx --labels labels.json --preprocess imagenet

exit codes: 0 READY; 11 the golden sample comes out differently; 12 no such file; 13 damaged; 14 no card, or one
that does not match; 15 a fixed batch; 16 an operator, opset, version or device that is not known here
"""
#: Batch size and number of the runs after the warm-up; the median of their times is shown.
RUNS = ((1, 9), (4, 5))
#: Runs before the timing starts: TorchScript compiles for a shape in its first two.
WARM_UPS = 3


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's arguments."""
    parser.add_argument("file", metavar="FILE", help="a model file, or the name of one in the model folder")
    parser.add_argument("--threads", type=positive, default=1, metavar="N", help="of one prediction (default: 1)")
    add_device_flag(parser)
    add_card_flags(parser)


def run(args: argparse.Namespace) -> int:
    """Load, compare the golden sample, warm up, time; an error ends with its own exit code."""
    hand_on(args, [args.file])
    runtime, load_s = _timed(lambda: loader.load(args.file, threads=args.threads, device=asked_for(args.device)))
    print(f"loaded {runtime.card.name} {runtime.digest} in {load_s:.2f} s")
    print(f"device: {runtime.device}, {runtime.precision}")
    _, golden_s = _timed(lambda: golden.verify(runtime))
    if runtime.card.golden is None:
        print("golden sample: the file has none, so nothing says that its answers are right")
    else:
        print(f"golden sample: met in {golden_s:.2f} s")
    for batch, runs in RUNS:
        warm_s, median_s = _times(runtime, batch, runs)
        print(f"batch {batch}: warm after {warm_s:.2f} s, {1000 * median_s:.1f} ms, {batch / median_s:.0f} images/s")
    print("READY")
    return 0


def _times(runtime: Runtime, batch: int, runs: int) -> tuple[float, float]:
    """Seconds of the warm-up, and the median seconds of one run after it."""
    images = np.zeros((batch, *runtime.card.preprocessing.size, 3), np.uint8)
    _, warm_s = _timed(lambda: [runtime.predict(images) for _ in range(WARM_UPS)])
    return warm_s, float(np.median([_timed(lambda: runtime.predict(images))[1] for _ in range(runs)]))


def _timed(work: Callable[[], T]) -> tuple[T, float]:
    started = time.perf_counter()
    result = work()
    return result, time.perf_counter() - started
