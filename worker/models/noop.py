"""A model that is none: decodes nothing and answers at once, to measure and test the queue alone."""

from __future__ import annotations

import hashlib

import numpy as np

from jobs.errors import ModelMissingError
from worker.models.card import ModelCard, Preprocessing
from worker.models.runtime import Images, Scores

__all__ = ["NOOP", "NoopRuntime", "is_noop", "load_noop"]

#: The model's name; ``noop:1000`` is the same with 1,000 labels.
NOOP = "noop"
#: Labels of plain ``noop``.
DEFAULT_LABELS = 10


class NoopRuntime:
    """Fixed scores, whatever the images: label 0 gets 1/2, label 1 gets 1/4, and so on."""

    decodes = False

    def __init__(self, labels: int = DEFAULT_LABELS) -> None:
        name = NOOP if labels == DEFAULT_LABELS else f"{NOOP}-{labels}"
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
        return np.tile(self._row, (len(images), 1))


def is_noop(name: str) -> bool:
    """Whether the name means this model and no file."""
    return name == NOOP or name.startswith(NOOP + ":")


def load_noop(name: str) -> NoopRuntime:
    """``noop`` or ``noop:LABELS``; raises :class:`~jobs.errors.ModelMissingError` on any other form."""
    _, colon, labels = name.partition(":")
    if not colon:
        return NoopRuntime()
    if not labels.isascii() or not labels.isdigit() or not 1 <= int(labels) <= 100_000:
        raise ModelMissingError(f"{name!r}: after 'noop:' comes a number of labels, 1 to 100000")
    return NoopRuntime(int(labels))
