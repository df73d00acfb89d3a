"""From a module to a torch.export program (``.pt2``), and from that to machine code with AOTInductor."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from jobs.errors import ExportError, ModelUnsupportedError, TraceError
from worker.export.calm import one_thread
from worker.export.classifier import name_of
from worker.export.compare import largest_difference, reason
from worker.export.onnx import quiet
from worker.export.probes import tensor_probes
from worker.models import loader
from worker.models.card import CARD_KEY, ModelCard
from worker.models.torch_export import open_program
from worker.models.torchscript import TorchRuntime, check_runtime

__all__ = ["Captured", "compiled_ahead", "save_torch_export", "to_torch_export"]


@dataclass(frozen=True)
class Captured:
    """``program`` is a ``torch.export.ExportedProgram`` with a free first axis in every input."""

    program: Any
    largest_difference: float


@one_thread()
def to_torch_export(
    module: nn.Module, example: Sequence[Tensor], *, probes: Sequence[tuple[Tensor, ...]] | None = None
) -> Captured:
    """Capture the module (any number of inputs), and compare the program with it.

    ``example`` has a batch of at least 2. torch.export refuses a branch on data:
    raises :class:`~jobs.errors.TraceError` with the line.
    """
    module = module.eval()
    batch = torch.export.Dim("batch")
    with quiet(), torch.no_grad():
        try:
            program = torch.export.export(module, tuple(example), dynamic_shapes=tuple({0: batch} for _ in example))
        except Exception as exc:
            raise TraceError(
                f"torch.export cannot capture {name_of(module)}: {reason(exc)}; try --format torchscript or "
                "onnx, which keep a branch on data"
            ) from exc
    try:
        return Captured(program, largest_difference(module, program.module(), probes or tensor_probes(example)))
    except ExportError as exc:
        raise TraceError(f"torch.export of {name_of(module)} does not compute what it does: {exc.message}") from exc


def save_torch_export(program: Any, card: ModelCard, target: Path) -> None:
    """Write the program and its card to one file."""
    with quiet():
        torch.export.save(program, str(target), extra_files={CARD_KEY: card.to_json()})


@contextmanager
def compiled_ahead(path: Path) -> Iterator[TorchRuntime]:
    """The ``.pt2`` file compiled for this machine by AOTInductor; the machine code goes when the block ends.

    Takes from half a minute to minutes. Raises :class:`~jobs.errors.ModelUnsupportedError` where there is no C++
    compiler, or AOTInductor cannot compile the model.
    """
    if not any(shutil.which(name) for name in (os.environ.get("CXX") or "g++", "clang++")):
        raise ModelUnsupportedError("AOTInductor needs a C++ compiler; install g++, or set CXX")
    program = open_program(path)
    with tempfile.TemporaryDirectory(prefix="labelmill-aot-") as folder:
        package = Path(folder) / "compiled.pt2"
        with quiet(), torch.no_grad():
            try:
                torch._inductor.aoti_compile_and_package(program, package_path=str(package))
                module = torch._inductor.aoti_load_package(str(package))
            except Exception as exc:
                raise ModelUnsupportedError(f"{path}: AOTInductor cannot compile it: {reason(exc)}") from exc
        runtime = TorchRuntime(module, loader.read_card(path), loader.digest(path))
        check_runtime(runtime, path)
        yield runtime
