"""A model that can be reckoned by hand, and the decoding that belongs to it."""

from __future__ import annotations

import numpy as np

from jobs.errors import CorruptImageError, ModelRunError
from worker.models.card import ModelCard
from worker.models.runtime import Images, Scores

__all__ = ["Brightness", "decode"]

LABELS = 4


class Brightness:
    """A model that can be reckoned by hand: the image's first grey level says which label wins; 255 makes it raise."""

    decodes = True
    digest = "sha256:00"
    card = ModelCard("brightness", tuple("abcd"))

    def __init__(self) -> None:
        self.batches: list[int] = []

    def predict(self, images: Images) -> Scores:
        self.batches.append(len(images))
        levels = images[:, 0, 0, 0]
        if (levels == 255).any():
            raise ModelRunError
        return np.eye(LABELS, dtype=np.float32)[levels % LABELS]


def decode(data: bytes, out: Images) -> None:
    if data == b"bad":
        raise CorruptImageError("cut short")
    out[...] = int(data)
