"""The training of ``Cifar10CNN``: a seeded loop on one thread, all images in memory.

SGD with Nesterov momentum under a one-cycle learning rate; each image is flipped left to right half of the
time and cropped at random from itself with a reflected border, a whole batch at once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.optim.lr_scheduler import OneCycleLR

from jobs.errors import UsageError
from worker.export.cifar10 import INPUT_SIZE, MEAN, STD, Cifar10CNN

__all__ = ["Epoch", "Recipe", "measure", "reproducible", "tensors", "train"]

#: Images in one step of measuring; only memory depends on it.
MEASURE_BATCH = 500

Split = tuple[Tensor, Tensor]  # uint8[N, 3, 32, 32], int64[N]


@dataclass(frozen=True)
class Recipe:
    """What decides the weights, beside the images: equal recipes give equal weights on the same machine."""

    seed: int = 1
    epochs: int = 45
    batch: int = 128
    #: Highest learning rate, reached after ``warmup`` (a share of all steps).
    learning_rate: float = 0.05
    warmup: float = 0.15
    momentum: float = 0.9
    weight_decay: float = 5e-4
    label_smoothing: float = 0.05
    #: Pixels of reflected border that a crop may reach into.
    border: int = 4

    def __post_init__(self) -> None:
        if self.epochs < 1 or self.batch < 1 or self.learning_rate <= 0:
            raise UsageError("epochs and batch are at least 1, and the learning rate is above 0")
        if not (0 < self.warmup < 1 and 0 <= self.label_smoothing < 1 and 0 <= self.border < INPUT_SIZE[0]):
            raise UsageError("warmup lies between 0 and 1, label smoothing from 0 below 1, border from 0 to 31")


@dataclass(frozen=True)
class Epoch:
    """Figures of one epoch: of training as it ran (augmented, with dropout), of the test set at its end."""

    train_loss: float
    train_accuracy: float
    test_loss: float
    test_accuracy: float


@contextmanager
def reproducible(seed: int) -> Iterator[torch.Generator]:
    """One thread, deterministic algorithms, torch seeded; a generator for the order and the augmentation."""
    threads, deterministic = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    try:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            yield torch.Generator().manual_seed(seed)
    finally:
        torch.use_deterministic_algorithms(deterministic)
        torch.set_num_threads(threads)


def tensors(images: NDArray[np.uint8], labels: NDArray[np.int64]) -> Split:
    """``uint8[N, 32, 32, 3]`` and ``int64[N]`` as tensors, channels first."""
    return torch.from_numpy(images).permute(0, 3, 1, 2).contiguous(), torch.from_numpy(labels)


def train(
    training: Split,
    test: Split,
    recipe: Recipe,
    on_step: Callable[[int], None] = lambda done: None,
    on_epoch: Callable[[int, Epoch], None] = lambda number, epoch: None,
) -> tuple[Cifar10CNN, list[Epoch]]:
    """Train a new network; returns it, in eval mode, and the figures of each epoch.

    ``on_step`` gets the number of images done in the epoch; ``on_epoch`` the epoch's number, from 1.
    The test set is measured for the curves only: nothing is chosen by it, the last epoch is what is kept.
    """
    with reproducible(recipe.seed) as generator:
        model = Cifar10CNN().to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        schedule = _schedule(model, recipe, steps=-(-len(training[1]) // recipe.batch))
        history = []
        for number in range(1, recipe.epochs + 1):
            batches = _batches(training, recipe, generator)
            trained = _one_epoch(model, schedule, batches, recipe.label_smoothing, on_step)
            history.append(Epoch(*trained, *measure(model, test)))
            on_epoch(number, history[-1])
    return model.eval(), history


def _one_epoch(
    model: nn.Module,
    schedule: OneCycleLR,
    batches: Iterator[Split],
    label_smoothing: float,
    on_step: Callable[[int], None],
) -> tuple[float, float]:
    """Mean loss and accuracy of the batches, each measured just before the network learns from it."""
    model.train()
    loss_sum = right = 0.0
    done = 0
    for images, labels in batches:
        logits = model(images)
        loss = F.cross_entropy(logits, labels, label_smoothing=label_smoothing)
        schedule.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        schedule.optimizer.step()
        schedule.step()
        loss_sum += loss.item() * len(labels)
        right += (logits.argmax(1) == labels).sum().item()
        done += len(labels)
        on_step(done)
    return loss_sum / done, right / done


def measure(model: nn.Module, split: Split) -> tuple[float, float]:
    """Mean cross-entropy and top-1 accuracy (0..1) of a model in eval mode."""
    model.eval()
    loss = right = 0.0
    with torch.inference_mode():
        for images, labels in zip(split[0].split(MEASURE_BATCH), split[1].split(MEASURE_BATCH), strict=True):
            logits = model(normalise(images))
            loss += F.cross_entropy(logits, labels, reduction="sum").item()
            right += (logits.argmax(1) == labels).sum().item()
    return loss / len(split[1]), right / len(split[1])


def normalise(images: Tensor) -> Tensor:
    """``uint8[N, 3, H, W]`` to what the network takes: float32, scaled to 0..1, normalised, channels last."""
    mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in (MEAN, STD))
    scaled = images.to(torch.float32, memory_format=torch.channels_last) / 255
    return (scaled - mean) / std


def _schedule(model: nn.Module, recipe: Recipe, steps: int) -> OneCycleLR:
    """The optimiser under its learning rate; ``steps`` are those of one epoch."""
    optimizer = torch.optim.SGD(
        model.parameters(),
        lr=recipe.learning_rate,
        momentum=recipe.momentum,
        weight_decay=recipe.weight_decay,
        nesterov=True,
    )
    return OneCycleLR(
        optimizer,
        max_lr=recipe.learning_rate,
        total_steps=recipe.epochs * steps + 1,
        pct_start=recipe.warmup,
        cycle_momentum=False,
    )


def _batches(split: Split, recipe: Recipe, generator: torch.Generator) -> Iterator[Split]:
    """One epoch: every image once, in a new order, augmented and normalised."""
    images, labels = split
    for chosen in torch.randperm(len(labels), generator=generator).split(recipe.batch):
        yield normalise(augment(images[chosen], recipe.border, generator)), labels[chosen]


def augment(images: Tensor, border: int, generator: torch.Generator) -> Tensor:
    """Each of ``uint8[N, 3, H, W]`` cropped at random from itself with a reflected border; half flipped."""
    count, _, height, width = images.shape
    bordered = F.pad(images, (border,) * 4, mode="reflect")
    down, right = torch.randint(0, 2 * border + 1, (2, count), generator=generator)
    windows = bordered.unfold(2, height, 1).unfold(3, width, 1)
    cropped = windows[torch.arange(count), :, down, right]
    flipped = torch.rand(count, generator=generator) < 0.5
    return torch.where(flipped.view(-1, 1, 1, 1), cropped.flip(-1), cropped)
