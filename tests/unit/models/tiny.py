"""One seeded network of 16 x 16 pixels, and a card that fits it."""

from __future__ import annotations

import torch
from torch import nn

from worker.models.card import ModelCard, Preprocessing


def tiny_network(classes: int = 7) -> nn.Module:
    """Seeded, so that every session has the same file contents."""
    torch.manual_seed(20)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, stride=2), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, classes)
    ).eval()


def tiny_card(classes: int = 7) -> ModelCard:
    """A card that fits :func:`tiny_network`."""
    return ModelCard(
        name="tiny",
        labels=tuple(f"class {index}" for index in range(classes)),
        preprocessing=Preprocessing(resize=16, crop=(16, 16)),
    )
