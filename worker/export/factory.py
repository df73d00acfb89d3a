"""A network from a user's own code: ``PKG.MOD:FACTORY``."""

from __future__ import annotations

import importlib
import os
import sys
from pathlib import Path
from typing import Any

from torch import nn

from jobs.errors import ExportError, ModelCardError
from worker.export.compare import reason
from worker.export.weights_file import load_weights
from worker.models.card import ModelCard
from worker.models.loader import digest

__all__ = ["from_factory"]


def from_factory(
    reference: str, weights: Path | None, *, labels: tuple[str, ...] | None
) -> tuple[nn.Module, ModelCard]:
    """Import the module from the current folder or the path, call the factory, load the weights into the network.

    Raises :class:`~jobs.errors.ExportError` where the reference leads to no network,
    :class:`~jobs.errors.ModelCardError` without labels, :class:`~jobs.errors.WeightsError` where the weights do
    not fit.
    """
    if labels is None:
        raise ModelCardError(f"{reference} brings no class names; give them with --labels FILE")
    network = _made(_found(reference), reference)
    source = reference
    if weights is not None:
        load_weights(network, weights)
        source += f"; weights {weights.name} {digest(weights)}"
    return network.eval(), ModelCard(name=reference, labels=labels, source=source)


def _found(reference: str) -> Any:
    module_name, colon, path = reference.partition(":")
    if not colon or not path:
        raise ExportError(f"--module {reference!r}: the form is PKG.MOD:FACTORY")
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    try:
        found: Any = importlib.import_module(module_name)
        for name in path.split("."):
            found = getattr(found, name)
    except (ImportError, AttributeError) as exc:
        raise ExportError(f"--module {reference}: {exc}") from exc
    except Exception as exc:
        raise ExportError(f"--module {reference}: importing it raised {reason(exc)}") from exc
    return found


def _made(factory: Any, reference: str) -> nn.Module:
    if isinstance(factory, nn.Module):
        return factory
    try:
        network = factory()
    except Exception as exc:
        raise ExportError(f"--module {reference}: calling it raised {reason(exc)}") from exc
    if not isinstance(network, nn.Module):
        raise ExportError(f"--module {reference} gives a {type(network).__name__}, not a torch.nn.Module")
    return network
