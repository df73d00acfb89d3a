"""Networks by name: the models of the house, and every classification architecture of torchvision."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import nn

from jobs.errors import ExportError
from worker.export import cifar10, efficientnet
from worker.export.published import published_weights
from worker.export.vision import vision
from worker.export.weights_file import load_weights
from worker.models.card import ModelCard, Preprocessing
from worker.models.loader import digest

__all__ = ["architecture", "architectures", "card_of"]

#: The small CNN for CIFAR-10 that comes with Labelmill.
CIFAR10_CNN = "cifar10-cnn"
#: torchvision gives these two auxiliary outputs for training, which their published weights carry.
AUXILIARY = ("googlenet", "inception_v3")


def architectures() -> list[str]:
    """Every name that :func:`architecture` knows."""
    models = vision().models
    return sorted([CIFAR10_CNN, efficientnet.NAME, *models.list_models(module=models)])


def architecture(
    name: str, weights: Path | None = None, *, labels: tuple[str, ...] | None = None
) -> tuple[nn.Module, ModelCard]:
    """The network in eval mode (normalised ``float32[N, 3, H, W]`` to logits) and its card without golden sample.

    ``weights`` is a state dict on disk; without it the published weights are taken, from torch's cache or the
    network. ``labels`` stand in for its own, and torchvision's networks are built for that many classes.
    Raises :class:`~jobs.errors.ExportError` on an unknown name, :class:`~jobs.errors.WeightsError` where
    the weights are not to be had or do not fit.
    """
    if name == CIFAR10_CNN:
        weights = weights or cifar10.WEIGHTS
        network: nn.Module = cifar10.Cifar10CNN()
    elif name == efficientnet.NAME:
        weights = weights or efficientnet.weights_file()
        network = efficientnet.network()
    else:
        weights = weights or published_weights(name, _published(name).url)
        network = _network(name, labels)
    load_weights(network, weights)
    card = card_of(name)
    if labels is not None:
        card = replace(card, labels=labels)
    return _finished(name, network).eval(), _with_source(card, weights)


def card_of(name: str) -> ModelCard:
    """The card of an architecture with the categories and the transforms of its own weights."""
    if name == CIFAR10_CNN:
        return ModelCard(name=name, labels=cifar10.CLASSES, preprocessing=cifar10.PREPROCESSING)
    if name == efficientnet.NAME:
        return efficientnet.card()
    published = _published(name)
    transforms = published.transforms()
    (crop,), (resize,) = transforms.crop_size, transforms.resize_size
    prep = Preprocessing(
        resize=resize,
        crop=(crop, crop),
        interpolation=transforms.interpolation.value,
        mean=tuple(transforms.mean),
        std=tuple(transforms.std),
    )
    return ModelCard(name=name, labels=tuple(published.meta["categories"]), preprocessing=prep)


def _published(name: str) -> Any:
    """torchvision's entry of the weights that it recommends: their address, transforms and categories."""
    models = vision().models
    if name not in models.list_models(module=models):
        raise ExportError(
            f"no architecture {name!r}; known: {', '.join(architectures())}; or give --module PKG.MOD:FACTORY"
        )
    return models.get_model_weights(name).DEFAULT


def _network(name: str, labels: tuple[str, ...] | None) -> nn.Module:
    options: dict[str, Any] = {"weights": None}
    if labels is not None:
        options["num_classes"] = len(labels)
    if name.startswith("vit_"):
        # Their position embeddings are made for one size; that of vit_h_14's weights is 518.
        options["image_size"] = min(_published(name).meta["min_size"])
    if name in AUXILIARY:
        # As torchvision itself builds them for their published weights.
        options |= {"aux_logits": True, "transform_input": True, "init_weights": False}
    network: nn.Module = vision().models.get_model(name, **options)
    return network


def _finished(name: str, network: Any) -> nn.Module:
    """What is exported of a network that has its weights."""
    if name == efficientnet.NAME:
        return efficientnet.rebuilt(network)
    if name in AUXILIARY:
        network.aux_logits = False
        for part in ("aux1", "aux2", "AuxLogits"):
            if hasattr(network, part):
                setattr(network, part, None)
    module: nn.Module = network
    return module


def _with_source(card: ModelCard, weights: Path) -> ModelCard:
    return replace(card, source=f"{card.name}; weights {weights.name} {digest(weights)}")
