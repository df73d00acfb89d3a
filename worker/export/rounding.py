"""Rounding the weights of a layer so that its output changes least, instead of each weight to its nearest step.

The error of one weight is made up for by those that are still to be rounded, as far as its inputs move together with
theirs: E. Frantar, S. Ashkboos, T. Hoefler and D. Alistarh, "GPTQ", ICLR 2023 (arXiv:2210.17323). A depthwise
convolution that takes large numbers from each other gains most: neighbouring pixels are nearly equal, so what counts is
the sum.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["Window", "moments", "round_together"]

Floats = NDArray[np.float64]
#: Share of the mean of the moments' diagonal that is added to it, so that inputs that are always zero do no harm.
DAMPING = 0.001
#: Places of a picture's plane that are looked at, at most, evenly spread.
PLACES = 256


@dataclass(frozen=True)
class Window:
    """How a convolution reads its input: sizes in pixels, ``pads`` as top, left, bottom, right."""

    kernel: tuple[int, int] = (1, 1)
    strides: tuple[int, int] = (1, 1)
    dilations: tuple[int, int] = (1, 1)
    pads: tuple[int, int, int, int] = (0, 0, 0, 0)
    groups: int = 1

    def read(self, images: NDArray[np.float32]) -> Floats:
        """float64[G, P, K]: of float32[N, C, H, W], for each group what P outputs are made of."""
        top, left, bottom, right = self.pads
        padded = np.pad(images, ((0, 0), (0, 0), (top, bottom), (left, right)))
        reach = tuple((size - 1) * step + 1 for size, step in zip(self.kernel, self.dilations, strict=True))
        seen = np.lib.stride_tricks.sliding_window_view(padded, reach, axis=(2, 3))
        seen = seen[:, :, :: self.strides[0], :: self.strides[1], :: self.dilations[0], :: self.dilations[1]]
        every = max(1, math.ceil((seen.shape[2] * seen.shape[3] / PLACES) ** 0.5))
        seen = seen[:, :, every // 2 :: every, every // 2 :: every]
        n, channels, rows, columns = seen.shape[:4]
        parts = seen.reshape(n, self.groups, channels // self.groups, rows, columns, -1)
        parts = parts.transpose(1, 0, 3, 4, 2, 5).reshape(self.groups, n * rows * columns, -1)
        return parts.astype(np.float64)


def moments(blocks: Iterable[Floats]) -> Floats:
    """float64[G, K, K]: sums over P of the products of each two of the K inputs, of float64[G, P, K] in blocks."""
    total: Floats = np.zeros(1)
    for block in blocks:
        total = total + block.transpose(0, 2, 1) @ block
    return total


def round_together(weights: Floats, second: Floats, step: Floats, most: int) -> NDArray[np.int8]:
    """int8[G, O, K] in units of ``step`` float64[G, O]: of float64[G, O, K], each within +-``most``.

    ``second`` are the inputs' :func:`moments`.
    """
    left, size = weights.copy(), weights.shape[-1]
    diagonal = np.einsum("gkk->gk", second)
    damping = DAMPING * diagonal.mean(axis=1, keepdims=True) + np.finfo(np.float32).tiny
    spread = np.linalg.inv(second + damping[..., np.newaxis] * np.eye(size))
    share = np.linalg.cholesky(spread).transpose(0, 2, 1)
    rounded = np.empty(weights.shape, np.int8)
    for k in range(size):
        rounded[..., k] = np.clip(np.rint(left[..., k] / step), -most, most)
        error = (left[..., k] - rounded[..., k] * step) / share[:, k, k, np.newaxis]
        left[..., k:] -= error[..., np.newaxis] * share[:, np.newaxis, k, k:]
    return rounded
