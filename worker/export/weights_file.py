"""Weights from a file into a module: tensors only, every key accounted for."""

from __future__ import annotations

import pickle
import re
import warnings
import zipfile
from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from jobs.errors import UnsafePickleError, WeightsError
from worker.models.reader import ZIP_ERRORS

__all__ = ["load_weights", "read_state_dict"]

#: Keys under which training scripts keep the weights beside other things.
WRAPPERS = ("state_dict", "model_state_dict", "model")
#: DataParallel and DistributedDataParallel put this before every name.
PARALLEL = "module."
#: How many keys of a kind a message names.
NAMED_KEYS = 3
#: DenseNet's published weights say norm.1 where the module has said norm1 since 2018.
_OLD_DENSENET = re.compile(r"(denselayer\d+\.(?:norm|conv))\.([12]\.)")


def load_weights(module: nn.Module, path: Path) -> None:
    """Fill the module in place.

    Raises :class:`~jobs.errors.WeightsError` with the first missing, unexpected or misshapen keys.
    """
    state = read_state_dict(path)
    kind = type(module).__name__
    try:
        missing, unexpected = module.load_state_dict(state, strict=False)
    except (RuntimeError, ValueError) as exc:
        lines = [line.strip() for line in str(exc).splitlines()]
        raise WeightsError(f"{path} does not fit {kind}: {lines[-1]}") from exc
    problems = [*_named("missing", missing), *_named("unexpected", unexpected)]
    if problems:
        raise WeightsError(f"{path} does not fit {kind}: {'; '.join(problems)}")


def read_state_dict(path: Path) -> Mapping[str, Tensor]:
    """The tensors of a file by name, read without running any code of it.

    Raises :class:`~jobs.errors.UnsafePickleError` where the file holds more than tensors, and
    :class:`~jobs.errors.WeightsError` where it is missing, damaged, or no state dict.
    """
    if not path.is_file():
        raise WeightsError(f"no weights at {path}")
    if _is_torchscript(path):
        raise WeightsError(
            f"{path} is a TorchScript file, not a state dict; take the weights out of it: "
            "torch.save(torch.jit.load(FILE).state_dict(), NEW)"
        )
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # advice on pickle protocols; the outcome is what counts
            loaded = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as exc:
        if culprit := _culprit(exc):
            raise UnsafePickleError(
                f"{path} is a pickle that holds code, not only tensors ({culprit}), and is refused: reading it "
                "would need weights_only=False and run that code; where it was made, save the weights alone: "
                "torch.save(model.state_dict(), FILE)"
            ) from exc
        raise WeightsError(f"{path} cannot be read as weights: it is damaged or no file of torch.save") from exc
    except Exception as exc:
        raise WeightsError(f"{path} cannot be read as weights: it is damaged or cut short") from exc
    return _state_dict(loaded, path)


def _is_torchscript(path: Path) -> bool:
    try:
        with zipfile.ZipFile(path) as archive:
            return any("/code/" in name for name in archive.namelist())
    except ZIP_ERRORS:
        return False


def _state_dict(loaded: Any, path: Path) -> Mapping[str, Tensor]:
    for wrapper in WRAPPERS:
        if isinstance(loaded, Mapping) and isinstance(loaded.get(wrapper), Mapping):
            loaded = loaded[wrapper]
    if not isinstance(loaded, Mapping) or not all(isinstance(value, Tensor) for value in loaded.values()):
        raise WeightsError(f"{path} holds no state dict; save one: torch.save(model.state_dict(), FILE)")
    state = OrderedDict((_current_name(str(key)), value) for key, value in loaded.items())
    # Version numbers of the modules: MNASNet refuses weights without them.
    metadata = getattr(loaded, "_metadata", None)
    if metadata is not None:
        state._metadata = OrderedDict(  # type: ignore[attr-defined]
            (_current_name(key), value) for key, value in metadata.items()
        )
    return state


def _current_name(key: str) -> str:
    return _OLD_DENSENET.sub(r"\1\2", key.removeprefix(PARALLEL))


def _named(what: str, keys: list[str]) -> list[str]:
    if not keys:
        return []
    more = f" and {len(keys) - NAMED_KEYS} more" if len(keys) > NAMED_KEYS else ""
    return [f"{what} {', '.join(keys[:NAMED_KEYS])}{more}"]


def _culprit(exc: Exception) -> str:
    """The object that torch refused to make, from its message; empty where the file is no pickle of torch's."""
    found = re.search(r"(?:GLOBAL|unrecognized function|class) (?:<\w+ )?([\w.]+)", str(exc))
    return found[1] if found else ""
