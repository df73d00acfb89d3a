"""The contract of a runtime: what turns a batch of images into scores.

Implementations: :mod:`worker.models.onnx`, :mod:`worker.models.torchscript`, :mod:`worker.models.noop`.
Loading, warming up and running are three calls; nothing happens at import.
"""

from __future__ import annotations

from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from worker.models.card import ModelCard

__all__ = ["Images", "Runtime", "Scores"]

Images = NDArray[np.uint8]  # [N, H, W, 3], RGB
Scores = NDArray[np.float32]  # [N, len(card.labels)]


class Runtime(Protocol):
    """One loaded model in one process. ``predict`` may be called from several threads."""

    card: ModelCard
    #: "sha256:<hex>" of the model file: the model's identity.
    digest: str
    #: False where ``predict`` looks at the number of images only, so that none need be fetched or decoded.
    decodes: bool
    #: What computes: "cpu" or "cuda".
    device: str
    #: The arithmetic it computes in: "float32", "tf32", "float16", ...
    precision: str

    def predict(self, images: Images) -> Scores:
        """Final scores of a batch: ``uint8[N, H, W, 3]`` in, ``float32[N, C]`` out, same length, same order.

        Raises :class:`~jobs.errors.ModelRunError` where the model raises.
        """

    def shrink(self) -> None:
        """Give back what batches needed that were larger than those to come. What is to come takes its own anew."""
