"""torch.export programs (``.pt2``): what upstream puts in TorchScript's place, behind the same contract."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from jobs.errors import ModelCorruptError, ModelUnsupportedError
from worker.models.card import ModelCard
from worker.models.torchscript import TorchRuntime, check_device, check_runtime, last_line

__all__ = ["load_torch_export", "open_program"]


def load_torch_export(
    path: Path, card: ModelCard, digest: str, *, threads: int = 1, device: str = "cpu"
) -> TorchRuntime:
    """The program as a module, checked against its card.

    ``threads`` is set for the whole process: torch has one pool.
    Raises a :class:`~jobs.errors.ModelFileError` of the class that fits.
    """
    check_device(device)
    torch.set_num_threads(threads)
    module = open_program(path).module().to(device)
    runtime = TorchRuntime(module, card, digest, device)
    check_runtime(runtime, path)
    return runtime


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
