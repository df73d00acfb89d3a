"""A model that is none: decodes nothing, and answers at once or after a while, to measure and test the queue alone."""

from __future__ import annotations

import hashlib
import re
import time

import numpy as np

from jobs.errors import ModelMissingError
from worker.models.card import ModelCard, Preprocessing
from worker.models.runtime import Images, Scores

__all__ = ["NOOP", "NoopRuntime", "is_noop", "load_noop"]

#: The model's name; ``noop:1000`` is the same with 1,000 labels, ``noop:10:2.5`` takes 2.5 ms for an image.
NOOP = "noop"
#: Labels of plain ``noop``.
DEFAULT_LABELS = 10


class NoopRuntime:
    """Fixed scores, whatever the images: label 0 gets 1/2, label 1 gets 1/4, and so on; sleeps ``image_s`` for each."""

    decodes = False
    device = "cpu"
    precision = "float32"

    def __init__(self, labels: int = DEFAULT_LABELS, image_s: float = 0.0) -> None:
        name = NOOP if labels == DEFAULT_LABELS else f"{NOOP}-{labels}"
        self.image_s = image_s
        self.card = ModelCard(
            name=name,
            labels=tuple(f"noop-{index}" for index in range(labels)),
            preprocessing=Preprocessing(resize=None, crop=(1, 1)),
            source="labelmill",
        )
        self.digest = "sha256:" + hashlib.sha256(name.encode()).hexdigest()
        self._row = np.ldexp(np.float32(1), -np.arange(1, labels + 1)).astype(np.float32)

    def predict(self, images: Images) -> Scores:
        """The same row for each image; only ``len(images)`` is looked at."""
        if self.image_s:
            time.sleep(self.image_s * len(images))
        return np.repeat(self._row[np.newaxis], len(images), axis=0)

    def shrink(self) -> None:
        """Nothing is kept."""


def is_noop(name: str) -> bool:
    """Whether the name means this model and no file."""
    return name == NOOP or name.startswith(NOOP + ":")


def load_noop(name: str) -> NoopRuntime:
    """``noop``, ``noop:LABELS`` or ``noop:LABELS:MS``; other forms raise :class:`~jobs.errors.ModelMissingError`."""
    if name == NOOP:
        return NoopRuntime()
    match = re.fullmatch(r"noop:(\d{1,6})(?::(\d{1,5}(?:\.\d+)?))?", name, re.ASCII)
    labels = int(match[1]) if match else 0
    if match is None or not 1 <= labels <= 100_000:
        raise ModelMissingError(
            f"{name!r}: after 'noop:' come a number of labels, 1 to 100000, and perhaps ':' and milliseconds an image"
        )
    return NoopRuntime(labels, float(match[2] or 0) / 1000)
