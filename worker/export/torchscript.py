"""From a module to TorchScript: by tracing, by scripting, or by scripting the parts that a trace would erase.

A trace records the operations of one run, so a branch that depends on the data comes out as the one side that the
example took. Every result is therefore compared with the module on inputs made to differ.
"""

from __future__ import annotations

import copy
import re
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from jobs.errors import ExportError, ScriptError, TraceError, UsageError
from worker.export.calm import one_thread
from worker.export.classifier import name_of
from worker.export.compare import largest_difference
from worker.export.probes import tensor_probes
from worker.models.card import CARD_KEY, ModelCard
from worker.models.torchscript import quiet_jit

__all__ = ["METHODS", "Scripted", "save_torchscript", "to_torchscript"]

METHODS = ("auto", "trace", "script")


@dataclass(frozen=True)
class Scripted:
    """``module`` is a ``torch.jit.ScriptModule``; ``method`` is how it was made: trace, script or mixed.

    ``note`` says why ``auto`` did not take the trace, or what to know about it; empty where there is nothing.
    """

    module: Any
    method: str
    largest_difference: float
    note: str = ""


@one_thread()
def to_torchscript(
    module: nn.Module,
    example: Sequence[Tensor],
    *,
    method: str = "auto",
    probes: Sequence[tuple[Tensor, ...]] | None = None,
) -> Scripted:
    """The module (any number of inputs) as TorchScript, compared with the eager module.

    ``trace`` records one run on the example, and raises :class:`~jobs.errors.TraceError` with the branch where it
    drifts. ``script`` compiles the source, and raises :class:`~jobs.errors.ScriptError`. ``auto`` traces, and where
    the trace drifts or passes a branch on data scripts the module, or else the parts of it that can be scripted.
    Submodules that are scripted already are kept as they are by every method.
    ``probes`` are the inputs to compare on; by default :func:`~worker.export.probes.tensor_probes` of the example.
    """
    if method not in METHODS:
        raise UsageError(f"method {method!r}: one of {', '.join(METHODS)}")
    module = module.eval()
    probes = probes or tensor_probes(example)
    ways = {"trace": _traced, "script": _scripted, "auto": _auto}
    return ways[method](module, tuple(example), probes)


def save_torchscript(script: Any, card: ModelCard, target: Path) -> None:
    """Write the module and its card to one file."""
    with quiet_jit():
        torch.jit.save(script, str(target), _extra_files={CARD_KEY: card.to_json().encode()})


def _auto(module: nn.Module, example: tuple[Tensor, ...], probes: Sequence[tuple[Tensor, ...]]) -> Scripted:
    try:
        traced = _traced(module, example, probes)
    except TraceError as exc:
        return _without_trace(module, example, probes, exc)
    if not traced.note:
        return traced
    # The trace agrees on every probe, but the module branches on data: its source is the better witness.
    try:
        scripted = _scripted(module, example, probes)
    except ExportError:
        return traced
    return Scripted(scripted.module, scripted.method, scripted.largest_difference, traced.note)


def _without_trace(
    module: nn.Module, example: tuple[Tensor, ...], probes: Sequence[tuple[Tensor, ...]], cause: TraceError
) -> Scripted:
    try:
        result = _scripted(module, example, probes)
    except ScriptError as script_error:
        try:
            result = _mixed(module, example, probes)
        except ExportError:
            raise TraceError(f"{cause.message}; and {script_error.message}") from script_error
    return Scripted(result.module, result.method, result.largest_difference, f"tracing: {cause.message}")


def _traced(module: nn.Module, example: tuple[Tensor, ...], probes: Sequence[tuple[Tensor, ...]]) -> Scripted:
    script, branches, constants = trace(module, example)
    where = f"branch on data at {branches[0]}" if branches else ""
    try:
        largest = _difference(module, script, probes)
    except ExportError as exc:
        frozen = f"number taken from the data at {constants[0]}" if constants else ""
        because = f" because of a {where or frozen}" if where or frozen else ""
        raise TraceError(
            f"the trace of {name_of(module)} does not compute what the module does{because}: "
            f"{exc.message}; use --method script or auto"
        ) from exc
    return Scripted(script, "trace", largest, where)


def _scripted(module: nn.Module, _: tuple[Tensor, ...], probes: Sequence[tuple[Tensor, ...]]) -> Scripted:
    script = script_module(module)
    return Scripted(script, "script", _difference(module, script, probes))


def _mixed(module: nn.Module, example: tuple[Tensor, ...], probes: Sequence[tuple[Tensor, ...]]) -> Scripted:
    """Script the largest submodules that can be, and trace what is around them."""
    partly = copy.deepcopy(module)
    _script_children(partly)
    result = _traced(partly, example, probes)
    return Scripted(result.module, "mixed", _difference(module, result.module, probes))


def _difference(module: nn.Module, script: Any, probes: Sequence[tuple[Tensor, ...]]) -> float:
    """Without torch's optimiser, which would compile the module anew for every shape.

    It took 47 of the 93 s of DenseNet-161's export. What is saved is loaded and compared once more as a worker runs it.
    """
    with torch.jit.optimized_execution(False):  # type: ignore[attr-defined]
        return largest_difference(module, script, probes)


def _script_children(module: nn.Module) -> None:
    for name, child in module.named_children():
        if isinstance(child, torch.jit.ScriptModule):
            continue
        try:
            setattr(module, name, script_module(child))
        except ScriptError:
            _script_children(child)


def trace(module: nn.Module, example: tuple[Tensor, ...]) -> tuple[Any, list[str], list[str]]:
    """The operations that the module runs on the example, and the places where it loses what depends on data.

    Those are the branches, and those where a number or an array is made of a tensor.

    Raises :class:`~jobs.errors.TraceError` where torch cannot trace.
    """
    tracer_warning = torch.jit._trace.TracerWarning
    with quiet_jit(), warnings.catch_warnings(record=True) as caught, torch.no_grad():
        warnings.simplefilter("always", tracer_warning)
        try:
            script = torch.jit.trace(module, example, check_trace=False)
        except Exception as exc:
            raise TraceError(f"{name_of(module)} cannot be traced: {_last_line(exc)}") from exc
    places: tuple[list[str], list[str]] = [], []
    for warning in caught:
        if issubclass(warning.category, tracer_warning):
            places["Python boolean" not in str(warning.message)].append(f"{warning.filename}:{warning.lineno}")
    return script, *places


def script_module(module: nn.Module) -> Any:
    """The module compiled from its source; raises :class:`~jobs.errors.ScriptError` with torch's reason."""
    with quiet_jit(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return torch.jit.script(module)
        except Exception as exc:
            # torch keeps the half-made class; the next attempt on it would fail with "Can't redefine method".
            torch.jit._recursive.concrete_type_store = torch.jit._recursive.ConcreteTypeStore()
            raise ScriptError(
                f"{name_of(module)} cannot be scripted: {_script_reason(exc)}; use --method trace, or auto to "
                "script the parts that can be, or --format onnx"
            ) from exc


def _script_reason(exc: Exception) -> str:
    """torch's first sentence, and the last place in a file that it names."""
    lines = [line.strip() for line in str(exc).splitlines() if line.strip()]
    places = re.findall(r'File "([^"]+)", line (\d+)', str(exc))
    reason = lines[0].rstrip(":.") if lines else type(exc).__name__
    return f"{reason} ({places[0][0]}:{places[0][1]})" if places else reason


def _last_line(exc: Exception) -> str:
    lines = [line.strip() for line in str(exc).splitlines() if line.strip()]
    return lines[-1] if lines else type(exc).__name__
