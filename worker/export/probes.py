"""Inputs made to differ, on which an export is compared with the module it came from.

An export that follows one example only, such as a trace of a branch, agrees on that example. So these vary in
brightness, contrast, sign, scale and batch size.
"""

from __future__ import annotations

import numpy as np

from worker.models.golden import golden_images
from worker.models.runtime import Images

__all__ = ["BATCHES", "image_batches"]

#: Batch sizes at which every export is compared.
BATCHES = (1, 2, 5)


def image_batches(height: int, width: int) -> list[Images]:
    """Batches of 1, 2 and 5 images: noise, blocks, dark, bright, black, white and a ramp, each once alone."""
    ramp = np.linspace(0, 255, width).astype(np.uint8)[None, :, None]
    extremes = [np.full((height, width, 3), value, np.uint8) for value in (0, 255)]
    pool = [*golden_images(height, width), *extremes, np.broadcast_to(ramp, (height, width, 3)).copy()]
    singles = [np.stack([image]) for image in pool]
    return [*singles, np.stack(pool[1:3]), np.stack(pool[:5])]
