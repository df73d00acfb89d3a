"""From a module to TorchScript: by tracing or by scripting, its card in ``_extra_files``."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from worker.models.card import CARD_KEY, ModelCard
from worker.models.torchscript import quiet_jit

__all__ = ["save_torchscript", "trace"]


def save_torchscript(
    classifier: nn.Module, card: ModelCard, example: Tensor, target: Path, *, method: str = "auto"
) -> str:
    """Write the classifier and its card to one file; returns the method used, ``trace`` or ``script``."""
    script = trace(classifier, (example,))
    with quiet_jit():
        torch.jit.save(script, str(target), _extra_files={CARD_KEY: card.to_json().encode()})
    return "trace"


def trace(module: nn.Module, example: tuple[Tensor, ...]) -> Any:
    """The operations that the module runs on the example."""
    with quiet_jit(), warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore", torch.jit._trace.TracerWarning)
        return torch.jit.trace(module, example, check_trace=False)
