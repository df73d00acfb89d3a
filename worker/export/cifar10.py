"""The small CNN for CIFAR-10 that comes with Labelmill; ``examples/cifar10/train.py`` trained its weights."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn

from worker.models.card import Preprocessing

__all__ = ["CLASSES", "INPUT_SIZE", "MEAN", "PREPROCESSING", "STD", "WEIGHTS", "Cifar10CNN"]

#: The ten classes, by index.
CLASSES: tuple[str, ...] = (
    "airplane",
    "automobile",
    "bird",
    "cat",
    "deer",
    "dog",
    "frog",
    "horse",
    "ship",
    "truck",
)
#: (height, width) in pixels of what the network takes.
INPUT_SIZE = (32, 32)
#: Mean of each channel (R, G, B) over the 50,000 training images, scaled to 0..1.
MEAN = (0.4914, 0.4822, 0.4465)
#: Standard deviation of each channel over the same pixels.
STD = (0.2470, 0.2435, 0.2616)
#: For the model card: an image of any size is squeezed to 32 x 32; one of 32 x 32 is left as it is.
PREPROCESSING = Preprocessing(resize=INPUT_SIZE, crop=None, mean=MEAN, std=STD)
#: State dict (float32) of the trained network; ``torch.load(WEIGHTS, weights_only=True)`` reads it.
WEIGHTS = Path(__file__).parent / "weights" / "cifar10-cnn.pth"


class Cifar10CNN(nn.Module):
    """Three 3x3 convolutions (16, 32, 64), each with ReLU and a 2x2 max pool; linear 1024 -> 512 -> 10.

    In: ``float32[N, 3, 32, 32]``, RGB, normalised with :data:`MEAN` and :data:`STD`. Out: logits
    ``float32[N, 10]`` in the order of :data:`CLASSES`. In training, dropout (0.3) before both linear layers.
    """

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 16, kernel_size=3, padding=1)
        self.conv2 = nn.Conv2d(16, 32, kernel_size=3, padding=1)
        self.conv3 = nn.Conv2d(32, 64, kernel_size=3, padding=1)
        self.pool = nn.MaxPool2d(2)
        self.dropout = nn.Dropout(0.3)
        self.fc1 = nn.Linear(1024, 512)
        self.fc2 = nn.Linear(512, len(CLASSES))

    def forward(self, x: Tensor) -> Tensor:
        """Logits of a batch; traces and scripts."""
        x = self.pool(torch.relu(self.conv1(x)))
        x = self.pool(torch.relu(self.conv2(x)))
        x = self.pool(torch.relu(self.conv3(x)))
        x = self.dropout(torch.flatten(x, 1))
        x = self.dropout(torch.relu(self.fc1(x)))
        logits: Tensor = self.fc2(x)
        return logits
