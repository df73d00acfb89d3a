"""torchvision, where its compiled operators fit this torch and where they do not.

PyPI's Linux wheel of torchvision is a CUDA build. Beside a CPU-only torch its library cannot be loaded, and
the import dies as it registers shapes for operators that are not there. Classification needs none of them, so
their schemas are declared, without an implementation, before the import.
"""

from __future__ import annotations

import importlib
import importlib.util
import warnings
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

import torch

from jobs.errors import ExportError

__all__ = ["imagenet_labels", "vision"]

#: Operators for which torchvision registers shapes on import.
SCHEMAS = tuple(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor" for name in ("nms", "qnms"))


@cache
def vision() -> ModuleType:
    """The module ``torchvision``; raises :class:`~jobs.errors.ExportError` where it is not installed."""
    spec = importlib.util.find_spec("torchvision")
    if spec is None or spec.origin is None:
        raise ExportError("torchvision is not installed; install labelmill[export]")
    if not _library_loads(Path(spec.origin).parent / "_C.so"):
        _declare_schemas()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return importlib.import_module("torchvision")


def imagenet_labels() -> tuple[str, ...]:
    """The 1,000 names of ImageNet's classes, as torchvision's weights carry them."""
    weights: Any = vision().models.EfficientNet_B0_Weights.IMAGENET1K_V1
    return tuple(weights.meta["categories"])


def _library_loads(library: Path) -> bool:
    try:
        torch.ops.load_library(str(library))
    except (OSError, RuntimeError):
        return False
    return True


@cache
def _declare_schemas() -> torch.library.Library:
    """Kept alive by the cache: the schemas go when the object goes."""
    library = torch.library.Library("torchvision", "DEF")
    for schema in SCHEMAS:
        library.define(schema)
    return library
