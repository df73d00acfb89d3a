"""Small modules that show what each way of exporting keeps and what it loses."""

from __future__ import annotations

import inspect

import torch
from torch import Tensor, nn


class Gate(nn.Module):
    """x where the sum of x is positive, -x otherwise: a branch on data."""

    def forward(self, x: Tensor) -> Tensor:
        if x.sum() > 0:
            return x
        return -x


def branch_line() -> int:
    """The line of Gate's branch in this file."""
    lines, first = inspect.getsourcelines(Gate.forward)
    return first + next(number for number, line in enumerate(lines) if "if x.sum()" in line)


class GatedCell(nn.Module):
    """A recurrent cell of two inputs whose gate branches on data."""

    def __init__(self, gate: nn.Module | None = None) -> None:
        super().__init__()
        self.gate = gate if gate is not None else Gate()
        self.linear = nn.Linear(4, 4)

    def forward(self, x: Tensor, h: Tensor) -> tuple[Tensor, Tensor]:
        new = torch.tanh(self.gate(self.linear(x)) + h)
        return new, new


class PlainCell(nn.Module):
    """A recurrent cell of two inputs without a branch."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(4, 4)

    def forward(self, x: Tensor, h: Tensor) -> tuple[Tensor, Tensor]:
        new = torch.tanh(self.linear(x) + h)
        return new, new


class Unscriptable(nn.Module):
    """Tracing can follow this and the scripting compiler cannot read it."""

    def forward(self, x: Tensor, h: Tensor) -> Tensor:
        return sum((part for part in (x, h)), torch.zeros(()))


class UnscriptableAroundGate(nn.Module):
    """A part that only tracing can follow around a part that only scripting can keep."""

    def __init__(self) -> None:
        super().__init__()
        self.cell = GatedCell()
        self.last = Unscriptable()

    def forward(self, x: Tensor, h: Tensor) -> Tensor:
        new, _ = self.cell(x, h)
        return self.last(new, h)


class UnscriptableGate(nn.Module):
    """Neither: a branch on data in code that cannot be scripted."""

    def forward(self, x: Tensor, h: Tensor) -> Tensor:
        total = sum((part for part in (x, h)), torch.zeros(()))
        return total if x.sum() > 0 else -total


class BatchGate(nn.Module):
    """An image network whose gate looks at the whole batch: an image's answer depends on its neighbours."""

    def __init__(self) -> None:
        super().__init__()
        self.gate = Gate()
        self.conv = nn.Conv2d(3, 3, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(self.gate(x)).mean(dim=(2, 3))


class ImageGate(BatchGate):
    """An image network whose gate looks at each image's brightness; logits ``float32[N, 3]``."""

    def forward(self, x: Tensor) -> Tensor:
        gated: list[Tensor] = []
        for image in x:
            gated.append(self.gate(image))
        return self.conv(torch.stack(gated)).mean(dim=(2, 3))


def cell_inputs(batch: int = 2) -> tuple[Tensor, Tensor]:
    """x and h; the sums are positive, so that a trace of a gate takes one side."""
    generator = torch.Generator().manual_seed(3)
    return torch.rand(batch, 4, generator=generator), torch.rand(batch, 4, generator=generator)


def signed_inputs() -> list[tuple[Tensor, Tensor]]:
    """Inputs that take a gate both ways, at batch sizes 1, 2 and 5."""
    return [(sign * x, h) for batch in (1, 2, 5) for x, h in [cell_inputs(batch)] for sign in (1.0, -1.0, 50.0, -50.0)]
