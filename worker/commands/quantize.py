"""``labelmill-worker quantize``: the INT8 form of an ONNX file, and whether to use it."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from jobs.parser import positive
from worker.models import loader
from worker.models.flags import add_card_flags, hand_on

if TYPE_CHECKING:
    from worker.export.pictures import Pictures
    from worker.models.runtime import Runtime

__all__ = ["EPILOG", "add_arguments", "run"]

EPILOG = """examples:
  labelmill-worker quantize efficientnet-lite0 --calibration photos/ --output lite0-int8.onnx
  labelmill-worker quantize cifar10-cnn --calibration train/ --evaluate test/ --output cifar10-int8.onnx

with --evaluate, pictures in folders named like labels (or numbered) give the accuracy of both
"""
#: Batch sizes at which the two are timed, in turns, on one thread.
BATCHES = (1, 8)
#: What INT8 must at least be faster by to be worth a second file.
FASTER = 1.15
#: Points of accuracy that it may lose; without labels, the agreement of top-1 decides.
POINTS = 0.5


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's arguments."""
    parser.add_argument("file", metavar="FILE", help="an ONNX file, or the name of one in the model folder")
    parser.add_argument("--calibration", type=Path, required=True, metavar="DIR", help="pictures like those to come")
    parser.add_argument("--pictures", type=positive, default=200, metavar="N", help="of them to take (default: 200)")
    parser.add_argument("--evaluate", type=Path, metavar="DIR", help="other pictures to measure on")
    parser.add_argument("--output", type=Path, required=True, metavar="FILE")
    add_card_flags(parser)


def run(args: argparse.Namespace) -> int:
    """Write the file, measure both, and say "use it" or "don't"."""
    hand_on(args, [args.file])
    from worker.export.pictures import read_pictures
    from worker.export.quantize import AGREEMENT, quantize, read_source

    source = loader.resolve(args.file)
    card = read_source(source).card  # before minutes of reading pictures
    pictures = read_pictures(args.calibration, card, limit=args.pictures)
    _say_skipped(args.calibration, pictures)
    choice = quantize(source, args.output, pictures)
    print(f"{args.output}: {choice}")
    before, after = loader.load(source), loader.load(args.output)
    print(f"size: {source.stat().st_size / 1e6:.1f} to {args.output.stat().st_size / 1e6:.1f} MB")
    faster = _speed(before, after)
    if args.evaluate is not None:
        others = read_pictures(args.evaluate, before.card)
        _say_skipped(args.evaluate, others)
        fits, finding = _accuracy(before, after, others, AGREEMENT)
    else:
        fits = choice.agreement >= AGREEMENT
        finding = (
            f"top-1 agrees on {100 * choice.agreement:.1f} % of the held-out calibration pictures on which float32 is "
            f"not undecided, on {100 * choice.overall:.1f} % of all"
        )
    print(finding)
    use = fits and faster >= FASTER
    print(f"{'use it' if use else 'do not use it'}: {faster:.2f} times as fast here; {finding}")
    return 0


def _say_skipped(folder: Path, pictures: Pictures) -> None:
    if pictures.skipped:
        print(f"labelmill-worker: {folder}: left out, for they cannot be decoded: {pictures.skipped}", file=sys.stderr)


def _speed(before: Runtime, after: Runtime) -> float:
    """How many times as fast, by the best rate of each."""
    from worker.models.timing import measure_side_by_side

    best = [0.0, 0.0]
    for batch in BATCHES:
        rates = [timing.images_per_s for timing in measure_side_by_side([before, after], batch)]
        print(f"batch {batch}: float32 {rates[0]:.0f}, int8 {rates[1]:.0f} images/s, {rates[1] / rates[0]:.2f} times")
        best = [max(old, new) for old, new in zip(best, rates, strict=True)]
    return best[1] / best[0]


def _accuracy(before: Runtime, after: Runtime, pictures: Pictures, least: float) -> tuple[bool, str]:
    """Agreement of top-1 on all pictures, and accuracy on those whose folder names a label."""
    import numpy as np

    answers = [np.concatenate([m.predict(b).argmax(axis=1) for b in pictures.batches()]) for m in (before, after)]
    agreement = float((answers[0] == answers[1]).mean())
    finding = f"top-1 agrees on {100 * agreement:.2f} % of {len(answers[0])} pictures"
    labelled = pictures.classes >= 0
    if not labelled.any():
        return agreement >= least, finding
    accuracy = [100 * float((answer == pictures.classes)[labelled].mean()) for answer in answers]
    finding += f"; accuracy {accuracy[0]:.2f} % to {accuracy[1]:.2f} %"
    return accuracy[0] - accuracy[1] <= POINTS, finding
