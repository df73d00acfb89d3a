"""From a module to one ONNX file: a dynamic batch, named ends, checked, and run in ONNX Runtime against the module."""

from __future__ import annotations

import inspect
import io
import logging
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import onnx
import torch
from torch import Tensor, nn

from jobs.errors import ExportError, ModelFileError, UsageError
from worker.export.calm import one_thread
from worker.export.classifier import name_of
from worker.export.compare import eager, first_line, largest_difference, reason
from worker.export.files import written_whole
from worker.export.probes import tensor_probes
from worker.export.torchscript import METHODS, to_torchscript
from worker.models.card import CARD_KEY, ModelCard
from worker.models.onnx import open_session

__all__ = ["OPSET", "OnnxExport", "quiet", "to_onnx"]

#: The opset that torch.onnx of torch 2.13 is made for.
OPSET = 20
#: The oldest that torch.onnx writes.
OLDEST_OPSET = 7
#: protobuf's limit for one message, and so for a model in one file (bytes).
MAX_BYTES = 2**31 - 1


@dataclass(frozen=True)
class OnnxExport:
    """``method`` is ``trace`` (torch.export) or ``script``; ``note`` says why ``auto`` did not take the former."""

    path: Path
    method: str
    largest_difference: float
    note: str = ""


@dataclass(frozen=True)
class _Task:
    """What is asked for, once for all attempts."""

    module: nn.Module
    example: tuple[Tensor, ...]
    inputs: list[str]
    outputs: list[str]
    opset: int
    target: Path
    probes: Sequence[tuple[Tensor, ...]]
    card: ModelCard | None


@one_thread()
def to_onnx(
    module: nn.Module,
    example: Sequence[Tensor],
    target: Path,
    *,
    input_names: Sequence[str] | None = None,
    output_names: Sequence[str] | None = None,
    opset: int = OPSET,
    method: str = "auto",
    probes: Sequence[tuple[Tensor, ...]] | None = None,
    card: ModelCard | None = None,
) -> OnnxExport:
    """Write the module (any number of inputs, the first axis of each the batch) to ``target``.

    ``example`` has a batch of at least 2. ``trace`` captures with torch.export, which refuses a branch on data;
    ``script`` compiles the source and keeps it as ONNX's ``If``; ``auto`` tries them in this order. Every file is
    passed by ``onnx.checker`` and compared with the module on ``probes`` in ONNX Runtime before it appears.
    Names default to those of ``forward`` and to ``output_0``, ``output_1``, ...
    Raises :class:`~jobs.errors.ExportError`.
    """
    if method not in METHODS:
        raise UsageError(f"method {method!r}: one of {', '.join(METHODS)}")
    newest = onnx.defs.onnx_opset_version()
    if not OLDEST_OPSET <= opset <= newest:
        raise UsageError(f"opset {opset} cannot be written; ask for {OLDEST_OPSET} to {newest}")
    module = module.eval()
    _check_size(module)
    inputs = list(input_names or list(inspect.signature(module.forward).parameters)[: len(example)])
    count = len(eager(module, tuple(example)))
    outputs = list(output_names or [f"output_{number}" for number in range(count)])
    probes = probes or tensor_probes(example)
    with written_whole(target) as partial:
        task = _Task(module, tuple(example), inputs, outputs, opset, partial, probes, card)
        made = _attempts(task, method)
    return replace(made, path=target)


def _attempts(task: _Task, method: str) -> OnnxExport:
    ways: dict[str, Callable[[_Task, str], onnx.ModelProto]] = {"trace": _captured, "script": _compiled}
    if method != "auto":
        return _attempt(ways[method](task, method), task, method)
    try:
        return _attempt(_captured(task, method), task, "trace")
    except ExportError as exc:
        cause = exc.message
    try:
        made = _attempt(_compiled(task, method), task, "script")
    except ModelFileError as exc:
        raise ExportError(f"{name_of(task.module)}: {cause}; by scripting: {exc.message}") from exc
    return replace(made, note=cause)


def _attempt(model: onnx.ModelProto, task: _Task, method: str) -> OnnxExport:
    """Check, write, run and compare one candidate."""
    if task.card is not None:
        entry = model.metadata_props.add()
        entry.key, entry.value = CARD_KEY, task.card.to_json()
    opset = next((entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx")), None)
    if opset != task.opset:
        raise ExportError(f"torch.onnx writes opset {opset} this way where {task.opset} was asked for")
    try:
        onnx.checker.check_model(model, full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as exc:
        raise ExportError(f"onnx.checker refuses the export: {first_line(exc)}") from exc
    _forget_origins(model.graph.node)
    onnx.save_model(model, str(task.target))
    session = open_session(task.target)

    def run(*tensors: Tensor) -> Any:
        feeds = {name: tensor.numpy() for name, tensor in zip(task.inputs, tensors, strict=True)}
        return session.run(None, {name: feeds[name] for name in (node.name for node in session.get_inputs())})

    return OnnxExport(task.target, method, largest_difference(task.module, run, task.probes))


def _forget_origins(nodes: Any) -> None:
    """Drop the stack traces that torch.onnx leaves in every node: paths of the machine that exported it."""
    for node in nodes:
        del node.metadata_props[:]
        node.doc_string = ""
        for attribute in node.attribute:
            _forget_origins(attribute.g.node)


def _captured(task: _Task, _: str) -> onnx.ModelProto:
    """By torch.export: operators of the example, shapes free, constants folded."""
    batch = torch.export.Dim("batch")
    with quiet(), torch.no_grad():
        try:
            program = torch.onnx.export(
                task.module,
                task.example,
                input_names=task.inputs,
                output_names=task.outputs,
                dynamic_shapes=tuple({0: batch} for _ in task.example),
                opset_version=task.opset,
                dynamo=True,
                external_data=False,
                optimize=True,
                verbose=False,
            )
        except Exception as exc:
            raise ExportError(f"torch.export cannot capture it: {_cause(exc)}") from exc
    if program is None:
        raise ExportError("torch.onnx gave no program")
    return program.model_proto


def _compiled(task: _Task, method: str) -> onnx.ModelProto:
    """By TorchScript, whose branches become ``If`` nodes."""
    script = to_torchscript(task.module, task.example, method=method, probes=task.probes).module
    buffer: Any = io.BytesIO()
    with quiet(), torch.no_grad():
        try:
            torch.onnx.export(
                script,
                task.example,
                buffer,
                input_names=task.inputs,
                output_names=task.outputs,
                dynamic_axes={name: {0: "batch"} for name in (*task.inputs, *task.outputs)},
                opset_version=task.opset,
                do_constant_folding=True,
                dynamo=False,
            )
        except Exception as exc:
            raise ExportError(f"torch.onnx cannot convert its TorchScript: {_cause(exc)}") from exc
    return onnx.load_model_from_string(buffer.getvalue())


def _check_size(module: nn.Module) -> None:
    size = sum(t.numel() * t.element_size() for t in (*module.parameters(), *module.buffers()))
    if size > MAX_BYTES:
        raise ExportError(f"its weights are {size / 2**30:.1f} GB; an ONNX file holds 2 GB: export it as torchscript")


def _cause(exc: BaseException) -> str:
    """torch.onnx wraps the reason in pages of advice; the reason is the first error of the chain."""
    while exc.__cause__ is not None:
        exc = exc.__cause__
    return reason(exc)


@contextmanager
def quiet() -> Iterator[None]:
    """torch talks on both streams, through warnings and through logging; failures come as exceptions."""
    loggers = [logging.getLogger(name) for name in ("torch", "torch.onnx", "torch.fx", "onnxscript")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.CRITICAL)
    try:
        with warnings.catch_warnings(), redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
