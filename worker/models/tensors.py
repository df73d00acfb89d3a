"""The two ends of a model: from decoded images to its input, from its output to final scores.

A model file of ours needs neither: it takes ``uint8[N, H, W, 3]`` and gives scores. Plain files do.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from jobs.errors import ModelCardError, ModelFileError
from worker.models.card import ModelCard
from worker.models.runtime import Images, Scores

__all__ = ["check_scores", "empty_scores", "to_input", "to_scores"]


def to_input(images: Images, card: ModelCard) -> NDArray[Any]:
    """The model's input: the images as they are, or ``float32[N, 3, H, W]`` normalised as the card says."""
    if card.input == "uint8_nhwc":
        return images
    prep = card.preprocessing
    if prep.color_order == "BGR":
        images = images[..., ::-1]
    mean = np.asarray(prep.mean, np.float32) * np.float32(255)
    scale = np.float32(1) / (np.asarray(prep.std, np.float32) * np.float32(255))
    normal = (images.astype(np.float32) - mean) * scale
    return np.ascontiguousarray(normal.transpose(0, 3, 1, 2))


def to_scores(output: NDArray[Any], card: ModelCard) -> Scores:
    """``float32[N, C]`` final scores of a model's output."""
    scores = np.asarray(output, np.float32)
    if card.output == "scores" or card.activation == "none":
        return scores
    if card.activation == "sigmoid":
        return np.asarray(np.float32(0.5) * (np.float32(1) + np.tanh(scores / 2)), np.float32)
    raised = np.exp(scores - scores.max(axis=1, keepdims=True))
    return np.asarray(raised / raised.sum(axis=1, keepdims=True), np.float32)


def empty_scores(card: ModelCard) -> Scores:
    """The scores of no images."""
    return np.empty((0, len(card.labels)), np.float32)


def check_scores(output: NDArray[Any], card: ModelCard, images: int) -> None:
    """Raise :class:`~jobs.errors.ModelCardError` unless the output is a row of one score a label an image.

    Raises :class:`~jobs.errors.ModelFileError` where scores are no numbers and no golden sample will tell.
    """
    if output.ndim != 2 or len(output) != images:
        raise ModelCardError(
            f"{card.name}: the model gives an output of shape {list(output.shape)} for {images} images; "
            f"a classifier gives [{images}, {len(card.labels)}]"
        )
    if output.shape[1] != len(card.labels):
        raise ModelCardError(
            f"{card.name}: the model gives {output.shape[1]} scores an image but the card has "
            f"{len(card.labels)} labels; give the labels the model was trained with"
        )
    if card.golden is None and np.isnan(output).any():
        raise ModelFileError(f"{card.name}: the model gives scores that are no numbers (NaN); its weights are no good")
