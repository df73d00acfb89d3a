"""From an image classifier to an ONNX file: one file, a dynamic batch, its card in ``metadata_props``."""

from __future__ import annotations

import io
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from pathlib import Path

import onnx
import torch
from torch import Tensor, nn

from jobs.errors import ExportError
from worker.models.card import CARD_KEY, ModelCard

__all__ = ["INPUT_NAME", "OPSET", "OUTPUT_NAME", "convert", "save_onnx"]

#: Names of the graph's one input and one output.
INPUT_NAME, OUTPUT_NAME = "images", "scores"
#: The newest opset that torch.onnx of torch 2.13 writes without converting.
OPSET = 20
#: protobuf's limit for one message, and so for a model in one file (bytes).
MAX_BYTES = 2**31 - 1


def save_onnx(
    classifier: nn.Module, card: ModelCard, example: Tensor, target: Path, *, opset: int = OPSET
) -> None:
    """Write the classifier and its card to one file; checked by ``onnx.checker``.

    ``example`` is ``uint8[N, H, W, 3]`` with N of at least 2, so that the first axis stays free.
    Raises :class:`~jobs.errors.ExportError`.
    """
    model = convert(classifier, example, opset=opset)
    entry = model.metadata_props.add()
    entry.key, entry.value = CARD_KEY, card.to_json()
    if model.ByteSize() > MAX_BYTES:
        raise ExportError(
            "the model is larger than 2 GB and does not fit one ONNX file; export it as torchscript"
        )
    try:
        onnx.checker.check_model(model, full_check=True)
    except onnx.checker.ValidationError as exc:
        raise ExportError(f"onnx.checker refuses the export: {str(exc).partition(chr(10))[0]}") from exc
    onnx.save_model(model, str(target))


def convert(module: nn.Module, example: Tensor, *, opset: int = OPSET) -> onnx.ModelProto:
    """The module as a graph with folded constants and named ends."""
    with _quiet(), torch.no_grad():
        try:
            program = torch.onnx.export(
                module,
                (example,),
                input_names=[INPUT_NAME],
                output_names=[OUTPUT_NAME],
                dynamic_shapes=({0: torch.export.Dim("batch")},),
                opset_version=opset,
                dynamo=True,
                external_data=False,
                optimize=True,
                verbose=False,
            )
        except Exception as exc:
            raise ExportError(f"torch.onnx cannot export it: {_cause(exc)}") from exc
    if program is None:
        raise ExportError("torch.onnx gave no program")
    return program.model_proto


def _cause(exc: BaseException) -> str:
    """torch.onnx wraps the reason in pages of advice; the reason is the first error of the chain."""
    while exc.__cause__ is not None:
        exc = exc.__cause__
    return f"{type(exc).__name__}: {str(exc).strip().partition(chr(10))[0]}"


@contextmanager
def _quiet() -> Iterator[None]:
    """torch.onnx talks on stdout, through warnings and through logging; failures come as exceptions."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
