"""The form in which every model of ours is exported: decoded images in, final scores out.

Without ``from __future__ import annotations``: TorchScript's compiler reads the types of the buffers as objects.
"""

import torch
from torch import Tensor, nn

from worker.models.card import Activation, ModelCard, Preprocessing

__all__ = ["ImageClassifier", "as_classifier", "name_of"]


class ImageClassifier(nn.Module):
    """Normalisation, the network and its activation as one module.

    ``uint8[N, H, W, 3]`` RGB in, ``float32[N, C]`` out. The network takes ``float32[N, 3, H, W]`` and gives
    logits.
    """

    mean: Tensor
    scale: Tensor

    def __init__(self, network: nn.Module, prep: Preprocessing, activation: Activation) -> None:
        super().__init__()
        self.network = network
        self.activation: str = activation
        self.flip: bool = prep.color_order == "BGR"
        self.register_buffer("mean", 255 * torch.tensor(prep.mean).reshape(1, 3, 1, 1))
        self.register_buffer("scale", 1 / (255 * torch.tensor(prep.std).reshape(1, 3, 1, 1)))

    def forward(self, images: Tensor) -> Tensor:
        """Scores of a batch; every row on its own."""
        pixels = images.permute(0, 3, 1, 2).to(torch.float32)
        if self.flip:
            pixels = pixels.flip(1)
        logits: Tensor = self.network((pixels - self.mean) * self.scale).to(torch.float32)
        if self.activation == "softmax":
            return torch.softmax(logits, dim=1)
        if self.activation == "sigmoid":
            return torch.sigmoid(logits)
        return logits


def as_classifier(network: nn.Module, card: ModelCard) -> ImageClassifier:
    """The network in eval mode, wrapped as its card says."""
    return ImageClassifier(network, card.preprocessing, card.activation).eval()


def name_of(module: nn.Module) -> str:
    """The class that its author knows: the network's, where it is wrapped."""
    return type(module.network if isinstance(module, ImageClassifier) else module).__name__
