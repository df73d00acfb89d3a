"""Weights from a file into a module: tensors only, every key accounted for."""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from jobs.errors import UnsafePickleError, WeightsError

__all__ = ["load_weights", "read_state_dict"]

#: Keys under which training scripts keep the weights beside other things.
WRAPPERS = ("state_dict", "model_state_dict", "model")


def load_weights(module: nn.Module, path: Path) -> None:
    """Fill the module in place.

    Raises :class:`~jobs.errors.WeightsError` with the first missing, unexpected or misshapen keys.
    """
    state = read_state_dict(path)
    own = module.state_dict()
    problems = [
        *_named("missing", sorted(set(own) - set(state))),
        *_named("unexpected", sorted(set(state) - set(own))),
        *_misshapen(own, state),
    ]
    if problems:
        raise WeightsError(f"{path} does not fit {type(module).__name__}: {'; '.join(problems)}")
    module.load_state_dict(state)


def read_state_dict(path: Path) -> dict[str, Tensor]:
    """The tensors of a file by name, read without running any code of it.

    Raises :class:`~jobs.errors.UnsafePickleError` where the file holds more than tensors, and
    :class:`~jobs.errors.WeightsError` where it is missing, damaged, or no state dict.
    """
    if not path.is_file():
        raise WeightsError(f"no weights at {path}")
    try:
        loaded = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as exc:
        raise UnsafePickleError(
            f"{path} is a pickle that runs code when it is read ({_culprit(exc)}) and is refused; where it "
            "was made, save the weights alone: torch.save(model.state_dict(), FILE)"
        ) from exc
    except Exception as exc:
        raise WeightsError(f"{path} cannot be read as weights: it is damaged or cut short") from exc
    return _state_dict(loaded, path)


def _state_dict(loaded: Any, path: Path) -> dict[str, Tensor]:
    for wrapper in WRAPPERS:
        if isinstance(loaded, Mapping) and isinstance(loaded.get(wrapper), Mapping):
            loaded = loaded[wrapper]
    if not isinstance(loaded, Mapping) or not all(isinstance(value, Tensor) for value in loaded.values()):
        raise WeightsError(f"{path} holds no state dict; save one: torch.save(model.state_dict(), FILE)")
    # DataParallel and DistributedDataParallel put this before every name.
    return {str(key).removeprefix("module."): value for key, value in loaded.items()}


def _named(what: str, keys: list[str]) -> list[str]:
    if not keys:
        return []
    more = f" and {len(keys) - 3} more" if len(keys) > 3 else ""
    return [f"{what} {', '.join(keys[:3])}{more}"]


def _misshapen(own: Mapping[str, Tensor], state: Mapping[str, Tensor]) -> list[str]:
    for key in own.keys() & state.keys():
        if own[key].shape != state[key].shape:
            return [f"{key} is {list(state[key].shape)} where the module has {list(own[key].shape)}"]
    return []


def _culprit(exc: Exception) -> str:
    """The line of torch's advice that names the object."""
    lines = [line.strip() for line in str(exc).splitlines()]
    return next((line for line in lines if "Unsupported" in line or "global" in line.lower()), lines[0])[:160]
