"""Inputs made to differ, on which an export is compared with the module it came from.

An export that follows one example only, such as a trace of a branch, agrees on that example. So these vary in
sign, scale, brightness, contrast and batch size.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from worker.models.golden import golden_images
from worker.models.runtime import Images

__all__ = ["BATCHES", "image_batches", "image_probes", "tensor_probes"]

#: Batch sizes at which every export is compared.
BATCHES = (1, 2, 5)
#: Sizes of the values of a floating-point probe.
SCALES = (0.01, 1.0, 10.0)


def image_batches(height: int, width: int) -> list[Images]:
    """``uint8[N, height, width, 3]`` with N of 1, 2 and 5: noise, blocks, dark, bright, black, white and a ramp."""
    ramp = np.linspace(0, 255, width).astype(np.uint8)[None, :, None]
    extremes = [np.full((height, width, 3), value, np.uint8) for value in (0, 255)]
    pool = [*golden_images(height, width), *extremes, np.broadcast_to(ramp, (height, width, 3)).copy()]
    singles = [np.stack([image]) for image in pool]
    return [*singles, np.stack(pool[1:3]), np.stack(pool[:5])]


def image_probes(height: int, width: int) -> list[tuple[Tensor]]:
    """The same as arguments of a module."""
    return [(torch.from_numpy(batch),) for batch in image_batches(height, width)]


def tensor_probes(example: Sequence[Tensor], *, seed: int = 0) -> list[tuple[Tensor, ...]]:
    """Arguments like ``example``, whose first axis is the batch in every tensor.

    Floating-point tensors get every combination of signs at batch 1 (all positive, all negative), then mixed
    signs at each scale and batch size. Whole numbers are drawn from the range of the example's own.
    """
    generator = torch.Generator().manual_seed(seed)
    signs = itertools.product((1.0, -1.0), repeat=min(len(example), 3))
    probes = [
        tuple(_like(t, 1, generator, sign=s) for t, s in zip(example, itertools.cycle(sign), strict=False))
        for sign in signs
    ]
    for batch, scale in itertools.product(BATCHES, SCALES):
        probes.append(tuple(_like(t, batch, generator, scale=scale) for t in example))
    return probes


def _like(tensor: Tensor, batch: int, generator: torch.Generator, *, sign: float = 0.0, scale: float = 1.0) -> Tensor:
    shape = (batch, *tensor.shape[1:])
    if tensor.is_floating_point():
        values = torch.randn(shape, generator=generator) * scale
        return (values.abs() * sign if sign else values).to(tensor.dtype)
    if tensor.dtype == torch.bool:
        return torch.rand(shape, generator=generator) > 0.5
    low, high = (0, 255) if tensor.dtype == torch.uint8 else (int(tensor.min()), int(tensor.max()))
    return torch.randint(low, high + 1, shape, generator=generator).to(tensor.dtype)
