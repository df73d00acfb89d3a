"""Train ``Cifar10CNN`` on the 50,000 images of CIFAR-10; write its weights, its figures and its curves.

    python examples/cifar10/train.py                        # as the kept weights were made
    python examples/cifar10/train.py --epochs 2 --output /tmp/short
    python examples/cifar10/train.py --holdout 5000         # to try settings without the test images

Same seed, same machine: same weights, bit for bit. One thread, so that a shared machine stays usable.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import json
import platform
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import torch
from curves import draw
from data import add_arguments, load
from recipe import Epoch, Recipe, Split, tensors, train
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from jobs.errors import LabelmillError, UsageError
from worker.export.cifar10 import CLASSES, Cifar10CNN
from worker.export.files import written_whole

__all__ = ["main", "save"]

HERE = Path(__file__).parent
#: Names of what is written into the output folder.
WEIGHTS_NAME, FIGURES_NAME, CURVES_NAME = "cifar10-cnn.pth", "cifar10-cnn.json", "curves.png"


def parser() -> argparse.ArgumentParser:
    """The command line; every field of the recipe is an option."""
    result = argparse.ArgumentParser(description="Train the small CNN on CIFAR-10 and write its weights.")
    add_arguments(result)
    result.add_argument("--output", type=Path, default=Path("build/cifar10"), help="folder [build/cifar10]")
    result.add_argument("--holdout", type=int, default=0, help="measure on the last N training images [0]")
    for field in fields(Recipe):
        name = "--" + field.name.replace("_", "-")
        result.add_argument(name, type=type(field.default), default=field.default, help=f"[{field.default}]")
    return result


def main(argv: list[str] | None = None) -> int:
    """Train, save, and say what was reached."""
    args = parser().parse_args(argv)
    try:
        recipe = Recipe(**{field.name: getattr(args, field.name) for field in fields(Recipe)})
        args.output.mkdir(parents=True, exist_ok=True)
        training, test = _splits(args)
        started = time.monotonic()
        with _progress(recipe.epochs, len(training[1])) as report:
            model, history = train(training, test, recipe, **report)
        save(model, history, recipe, args.output)
    except LabelmillError as exc:
        print(f"error: {exc.message}", file=sys.stderr)
        return exc.exit_code
    except OSError as exc:
        print(f"error: {args.output} cannot be written to ({exc.strerror})", file=sys.stderr)
        return UsageError.exit_code
    except KeyboardInterrupt:
        print("stopped; nothing was written", file=sys.stderr)
        return 130
    minutes = (time.monotonic() - started) / 60
    right = f"{history[-1].test_accuracy:.2%} of {len(test[1]):,} images right"
    print(f"{right} after {minutes:.1f} min: {args.output}")
    return 0


def save(model: Cifar10CNN, history: list[Epoch], recipe: Recipe, folder: Path) -> None:
    """Weights (a float32 state dict), figures (JSON) and curves, each whole or not at all."""
    weights = weights_bytes(model)
    figures = {
        "architecture": "cifar10-cnn",
        "classes": CLASSES,
        "sha256": hashlib.sha256(weights).hexdigest(),
        "test_accuracy": history[-1].test_accuracy,
        "recipe": asdict(recipe),
        "made_with": {"torch": torch.__version__, "machine": platform.machine()},
        "history": [asdict(epoch) for epoch in history],
    }
    with written_whole(folder / WEIGHTS_NAME) as partial:
        partial.write_bytes(weights)
    with written_whole(folder / FIGURES_NAME) as partial:
        partial.write_text(json.dumps(figures, indent=1) + "\n")
    with written_whole(folder / CURVES_NAME) as partial:
        draw(history).save(partial)


def weights_bytes(model: Cifar10CNN) -> bytes:
    """The state dict as torch.save writes it; through memory, since the bytes would name the file."""
    buffer = io.BytesIO()
    torch.save({name: value.contiguous() for name, value in model.state_dict().items()}, buffer)
    return buffer.getvalue()


def _splits(args: argparse.Namespace) -> tuple[Split, Split]:
    data = load(args.cache, args.source)
    training = tensors(data.train_images, data.train_labels)
    if not args.holdout:
        return training, tensors(data.test_images, data.test_labels)
    if not 0 < args.holdout < len(training[1]):
        raise UsageError(f"--holdout {args.holdout} is not between 1 and {len(training[1]) - 1}")
    kept = len(training[1]) - args.holdout
    return (training[0][:kept], training[1][:kept]), (training[0][kept:], training[1][kept:])


@contextmanager
def _progress(epochs: int, images: int) -> Iterator[dict[str, Any]]:
    """A bar for the epoch on a terminal, and one line an epoch, there and in a pipe."""
    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, disable=not console.is_terminal, transient=True) as bar:
        task = bar.add_task(f"epoch 1 of {epochs}", total=images)

        def on_step(done: int) -> None:
            bar.update(task, completed=done)

        def on_epoch(number: int, epoch: Epoch) -> None:
            text = (
                f"epoch {number:>2} of {epochs}: training loss {epoch.train_loss:.4f}, "
                f"accuracy {epoch.train_accuracy:.2%}; test loss {epoch.test_loss:.4f}, "
                f"accuracy {epoch.test_accuracy:.2%}"
            )
            console.print(text, highlight=False, soft_wrap=True)
            bar.reset(task, description=f"epoch {number + 1} of {epochs}", total=images)

        yield {"on_step": on_step, "on_epoch": on_epoch}


if __name__ == "__main__":
    sys.exit(main())
