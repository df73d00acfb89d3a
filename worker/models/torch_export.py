"""torch.export programs (``.pt2``): what upstream puts in TorchScript's place, behind the same contract."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch.export.passes import move_to_device_pass

from jobs.errors import ModelCorruptError, ModelUnsupportedError
from worker.models.card import ModelCard
from worker.models.torch_ways import Way
from worker.models.torchscript import TorchRuntime, last_line, load_on

__all__ = ["load_torch_export", "open_program"]


def load_torch_export(
    path: Path, card: ModelCard, digest: str, *, threads: int = 1, device: str = "cpu"
) -> TorchRuntime:
    """The program as a module, checked against its card.

    ``threads`` is set for the whole process: torch has one pool.
    Raises a :class:`~jobs.errors.ModelFileError` of the class that fits.
    """
    torch.set_num_threads(threads)
    return load_on(device, path, card, digest, _module)


def open_program(path: Path) -> Any:
    """The ``torch.export.ExportedProgram`` in the file.

    Raises :class:`~jobs.errors.ModelCorruptError`, or :class:`~jobs.errors.ModelUnsupportedError` where the file is
    whole and this torch cannot read it.
    """
    try:
        with _quiet():
            return torch.export.load(str(path))
    except Exception as exc:
        if "ersion" in str(exc) or "perator" in str(exc) or "torch.ops" in str(exc):
            raise ModelUnsupportedError(f"{path}: torch {torch.__version__} cannot run it: {last_line(exc)}") from exc
        raise ModelCorruptError(f"{path}: no whole torch.export file; export it or copy it again") from exc


def _module(path: Path, device: str, way: Way) -> Any:
    program = open_program(path)
    if device != "cpu":
        program = moved(program, device)
    module = program.module()
    if way.dtype is not None:
        _forget_types(module)
    return way.laid_out(module)


def moved(program: Any, device: str) -> Any:
    """The program for another device than the one it was exported on, which its graph names.

    Raises :class:`~jobs.errors.ModelUnsupportedError` where it cannot go there.
    """
    try:
        with _quiet():
            return move_to_device_pass(program, device)
    except Exception as exc:
        raise ModelUnsupportedError(f"the device {device!r} does not take the model: {last_line(exc)}") from exc


def _forget_types(module: Any) -> None:
    """Drop the graph's own checks of the types that it was exported with: autocast computes in others."""
    for part in module.modules():
        if isinstance(part, torch.fx.GraphModule):
            checks = torch.ops.aten._assert_tensor_metadata.default
            for node in part.graph.find_nodes(op="call_function", target=checks):
                part.graph.erase_node(node)
            part.recompile()


@contextmanager
def _quiet() -> Iterator[None]:
    """torch logs and warns about what it then raises."""
    logger = logging.getLogger("torch")
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
