"""From a network and its card to one model file, proved equal to the module it came from."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from jobs.errors import ExportError
from worker.export.classifier import as_classifier
from worker.export.files import written_whole
from worker.export.probes import image_batches
from worker.models import golden, loader
from worker.models.card import ModelCard
from worker.models.runtime import Runtime, Scores

__all__ = ["ATOL", "RTOL", "ExportReport", "export_classifier"]

#: How far the exported model's scores may be from the module's.
RTOL, ATOL = 1e-3, 1e-5


@dataclass(frozen=True)
class ExportReport:
    """What was written, and how near to the module it is (largest absolute difference of a score)."""

    path: Path
    digest: str
    method: str
    largest_difference: float


def export_classifier(
    network: nn.Module, card: ModelCard, target: Path, *, file_format: str = "onnx", method: str = "auto"
) -> ExportReport:
    """Write ``target`` and compare it with the network on inputs made to differ; nothing is left on failure.

    ``network`` maps normalised ``float32[N, 3, H, W]`` to logits. ``file_format`` is ``onnx`` or
    ``torchscript``.
    Raises :class:`~jobs.errors.ExportError`.
    """
    classifier = as_classifier(network, card)
    size = card.preprocessing.size
    images = torch.from_numpy(golden.golden_images(*size))
    card = replace(card, golden=golden.make(_eager(classifier, images)))
    with written_whole(target) as partial:
        method = _write(classifier, card, images, partial, file_format=file_format, method=method)
        largest = _proved(classifier, loader.load(partial))
    return ExportReport(target, loader.digest(target), method, largest)


def _write(
    classifier: nn.Module, card: ModelCard, images: Tensor, target: Path, *, file_format: str, method: str
) -> str:
    if file_format == "onnx":
        from worker.export.onnx import save_onnx

        save_onnx(classifier, card, images[:2], target)
        return "onnx"
    from worker.export.torchscript import save_torchscript

    return save_torchscript(classifier, card, images[:2], target, method=method)


def _proved(classifier: nn.Module, runtime: Runtime) -> float:
    """The largest difference over all probes; raises unless every one is within tolerance."""
    largest = 0.0
    for batch in image_batches(*runtime.card.preprocessing.size):
        expected = _eager(classifier, torch.from_numpy(batch))
        scores = runtime.predict(batch)
        largest = max(largest, float(np.abs(scores - expected).max()))
        if not np.allclose(scores, expected, rtol=RTOL, atol=ATOL):
            raise ExportError(
                f"the exported {runtime.card.name} answers differently from the module: largest difference "
                f"{largest:.2g} at batch size {len(batch)}, allowed {ATOL:g} + {RTOL:g} x score"
            )
    golden.verify(runtime)
    return largest


def _eager(classifier: nn.Module, images: Tensor) -> Scores:
    with torch.inference_mode():
        scores: Scores = classifier(images).numpy()
    return scores
