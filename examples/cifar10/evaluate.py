"""Top-1 accuracy on the 10,000 test images: of the module in PyTorch, and of any model file beside it.

    python examples/cifar10/evaluate.py                                  # the kept weights, in eager PyTorch
    python examples/cifar10/evaluate.py cifar10-cnn.onnx cifar10-cnn.pt  # and these, with the difference
    python examples/cifar10/evaluate.py --weights build/cifar10/cifar10-cnn.pth

Model files run as a worker runs them: ``worker.models.loader.load(FILE).predict(uint8[N, 32, 32, 3])``.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from data import Images, Labels, add_arguments, load
from numpy.typing import NDArray

from jobs.errors import LabelmillError, ModelFileError
from worker.export.cifar10 import CLASSES, INPUT_SIZE, PREPROCESSING, WEIGHTS, Cifar10CNN
from worker.export.classifier import as_classifier
from worker.export.weights_file import load_weights
from worker.models import loader
from worker.models.card import ModelCard
from worker.models.runtime import Scores

__all__ = ["Measured", "compare", "main"]

Predict = Callable[[Images], Scores]


@dataclass(frozen=True)
class Measured:
    """One model's top-1 answers, ``int64[N]``, and how many in a hundred are right."""

    name: str
    answers: NDArray[np.int64]
    accuracy: float


def compare(weights: Path, files: Sequence[str], images: Images, labels: Labels, *, batch: int = 100) -> list[Measured]:
    """The module with ``weights`` in eager PyTorch first, then each model file or name, in order.

    Raises :class:`~jobs.errors.ModelFileError`.
    """
    measured = [_measure("eager", _eager(weights), images, labels, batch)]
    for file in files:
        runtime = loader.load(file)
        if runtime.card.labels != CLASSES or runtime.card.preprocessing.size != INPUT_SIZE:
            raise ModelFileError(f"{file} is no model of CIFAR-10's ten classes at 32 x 32")
        measured.append(_measure(file, runtime.predict, images, labels, batch))
    return measured


def _eager(weights: Path) -> Predict:
    network = Cifar10CNN()
    load_weights(network, weights)
    card = ModelCard(name="cifar10-cnn", labels=CLASSES, preprocessing=PREPROCESSING)
    classifier = as_classifier(network, card)

    def predict(images: Images) -> Scores:
        with torch.inference_mode():
            scores: Scores = classifier(torch.from_numpy(images)).numpy()
        return scores

    return predict


def _measure(name: str, predict: Predict, images: Images, labels: Labels, batch: int) -> Measured:
    starts = range(0, len(images), batch)
    answers = np.concatenate([predict(images[start : start + batch]).argmax(1) for start in starts])
    return Measured(name, answers, 100 * float((answers == labels).mean()))


def main(argv: list[str] | None = None) -> int:
    """Print one line a model."""
    parser = argparse.ArgumentParser(description="Top-1 accuracy on CIFAR-10's 10,000 test images.")
    add_arguments(parser)
    parser.add_argument("files", nargs="*", metavar="FILE", help="model files or names of prepared models")
    parser.add_argument("--weights", type=Path, default=WEIGHTS, help="of the module in PyTorch [the kept ones]")
    parser.add_argument("--batch", type=int, default=100, help="images at a time [100]")
    args = parser.parse_args(argv)
    try:
        data = load(args.cache, args.source)
        measured = compare(args.weights, args.files, data.test_images, data.test_labels, batch=args.batch)
    except LabelmillError as exc:
        print(f"error: {exc.message}", file=sys.stderr)
        return exc.exit_code
    eager = measured[0]
    for one in measured:
        difference = one.accuracy - eager.accuracy
        others = int((one.answers != eager.answers).sum())
        print(f"{one.accuracy:6.2f} %  {difference:+.2f} points  {others:>4} other answers  {one.name}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
