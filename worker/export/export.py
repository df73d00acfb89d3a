"""From a network and its card to one model file, proved equal to the module it came from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from jobs.errors import ExportError, UsageError
from worker.export.calm import one_thread
from worker.export.classifier import ImageClassifier, as_classifier
from worker.export.compare import ATOL, RTOL, eager, largest_difference, reason
from worker.export.files import written_whole
from worker.export.onnx import OPSET, to_onnx
from worker.export.probes import image_probes
from worker.export.torch_export import save_torch_export, to_torch_export
from worker.export.torchscript import save_torchscript, to_torchscript
from worker.models import golden, loader
from worker.models.card import ModelCard
from worker.models.tensors import check_scores

__all__ = ["FORMATS", "ExportReport", "export_classifier"]

#: What a network can be exported to.
FORMATS = ("onnx", "torchscript", "torch_export")
#: Names of an exported classifier's one input and one output.
INPUT_NAME, OUTPUT_NAME = "images", "scores"


@dataclass(frozen=True)
class ExportReport:
    """What was written, how, and how near to the module it is (largest absolute difference of a score)."""

    path: Path
    digest: str
    method: str
    largest_difference: float
    note: str = ""


@one_thread()
def export_classifier(
    network: nn.Module,
    card: ModelCard,
    target: Path,
    *,
    file_format: str = "onnx",
    method: str = "auto",
    opset: int = OPSET,
) -> ExportReport:
    """Write ``target`` and compare it with the network on inputs made to differ; nothing is left on failure.

    ``network`` maps normalised ``float32[N, 3, H, W]`` to logits ``float32[N, C]``. ``file_format`` is one
    of :data:`FORMATS`; ``method`` is ``auto``, ``trace`` or ``script``.
    Raises :class:`~jobs.errors.ExportError`, and :class:`~jobs.errors.ModelCardError` where the labels do not
    match the outputs.
    """
    classifier = as_classifier(network, card)
    height, width = card.preprocessing.size
    probes = image_probes(height, width)
    card = replace(card, golden=_golden(classifier, height, width, card))
    with written_whole(target) as partial:
        report = _write(classifier, card, probes, partial, file_format=file_format, method=method, opset=opset)
        runtime = loader.load(partial)
        largest = largest_difference(classifier, _predictor(runtime), probes)
        golden.verify(runtime)
    return replace(
        report, path=target, digest=runtime.digest, largest_difference=max(largest, report.largest_difference)
    )


def _write(
    classifier: ImageClassifier,
    card: ModelCard,
    probes: Sequence[tuple[Tensor, ...]],
    target: Path,
    *,
    file_format: str,
    method: str,
    opset: int,
) -> ExportReport:
    """The example is a probe of two images: with one, torch.export would take the batch for fixed."""
    example = next(probe for probe in probes if len(probe[0]) == 2)
    if file_format == "torchscript":
        made = to_torchscript(classifier, example, method=method, probes=probes)
        save_torchscript(made.module, card, target)
        return ExportReport(target, "", made.method, made.largest_difference, made.note)
    if file_format == "torch_export":
        if method == "script":
            raise UsageError("torch.export traces; --method script is for onnx and torchscript")
        captured = to_torch_export(classifier, example, probes=probes)
        save_torch_export(captured.program, card, target)
        return ExportReport(target, "", "trace", captured.largest_difference)
    export = to_onnx(
        classifier,
        example,
        target,
        input_names=[INPUT_NAME],
        output_names=[OUTPUT_NAME],
        opset=opset,
        method=method,
        probes=probes,
        card=card,
    )
    return ExportReport(target, "", export.method, export.largest_difference, export.note)


def _golden(classifier: ImageClassifier, height: int, width: int, card: ModelCard) -> dict[str, Any]:
    images = torch.from_numpy(golden.golden_images(height, width))
    scores = _scores(classifier, images, card)
    if not np.allclose(_scores(classifier, images, card), scores, rtol=RTOL, atol=ATOL):
        raise ExportError(
            f"{card.name}: the same images get another answer at the second call; something in it is random, or "
            "changes, in eval mode too (a dropout that is always on?)"
        )
    alone = np.concatenate([_scores(classifier, image[None], card) for image in images])
    if not np.allclose(alone, scores, rtol=RTOL, atol=ATOL):
        raise ExportError(
            f"{card.name}: the answer to an image depends on the other images of its batch; a worker batches "
            "whatever comes, so it cannot serve such a network"
        )
    return golden.make(scores)


def _scores(classifier: ImageClassifier, images: Tensor, card: ModelCard) -> NDArray[np.float32]:
    """The eager module's scores, one row an image."""
    try:
        (scores,) = eager(classifier, (images,))
    except Exception as exc:
        size = " x ".join(str(length) for length in images.shape[1:3])
        raise ExportError(
            f"the module fails on a batch of {len(images)} images of {size}: {reason(exc)}; "
            "it must take float32[N, 3, H, W] and give one tensor of logits [N, C]"
        ) from exc
    check_scores(scores, card, len(images))
    return np.asarray(scores, np.float32)


def _predictor(runtime: Any) -> Any:
    return lambda images: runtime.predict(images.numpy())
