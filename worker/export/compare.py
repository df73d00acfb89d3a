"""Whether an export computes what its module computes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from jobs.errors import ExportError
from worker.models.torchscript import last_line

__all__ = ["ATOL", "RTOL", "eager", "first_line", "flat", "largest_difference", "reason"]

#: How far an export's outputs may be from the module's: rtol * |output| + atol.
RTOL, ATOL = 1e-3, 1e-5

Arrays = list[NDArray[Any]]


def largest_difference(
    module: Callable[..., Any],
    run: Callable[..., Any],
    probes: Sequence[tuple[Tensor, ...]],
    *,
    rtol: float = RTOL,
    atol: float = ATOL,
) -> float:
    """The largest absolute difference of an output over all probes.

    ``module`` and ``run`` take the tensors of a probe; their outputs may be tensors, arrays, or nested in tuples,
    lists and dicts. Raises :class:`~jobs.errors.ExportError` at the first probe that is not within tolerance, or
    on which the export fails.
    """
    largest = 0.0
    for probe in probes:
        expected, shape = eager(module, probe), [list(tensor.shape) for tensor in probe]
        try:
            got = flat(run(*probe))
        except Exception as exc:
            raise ExportError(f"it fails on inputs of {shape}: {last_line(exc)}") from exc
        if len(got) != len(expected):
            raise ExportError(f"it gives {len(got)} outputs where the module gives {len(expected)}")
        for number, (one, other) in enumerate(zip(got, expected, strict=True)):
            try:
                np.testing.assert_allclose(one, other, rtol=rtol, atol=atol)
            except AssertionError as exc:
                raise ExportError(_drift(number, one, other, shape)) from exc
            largest = max(largest, _distance(one, other))
    return largest


def eager(module: Callable[..., Any], probe: tuple[Tensor, ...]) -> Arrays:
    """The module's outputs as a flat list of arrays; the probe is not changed."""
    with torch.inference_mode():
        return flat(module(*(tensor.clone() for tensor in probe)))


def flat(output: Any) -> Arrays:
    """Outputs of any nesting, in order, as arrays."""
    if isinstance(output, Tensor):
        return [output.detach().cpu().numpy()]
    if isinstance(output, np.ndarray):
        return [output]
    if isinstance(output, dict):
        output = list(output.values())
    if isinstance(output, tuple | list):
        return [array for part in output for array in flat(part)]
    return [np.asarray(output)]


def first_line(exc: BaseException) -> str:
    """The first line of a message: torch's and users' may have pages."""
    return str(exc).strip().partition("\n")[0]


def reason(exc: BaseException) -> str:
    """An error's class and first line, and the last place of the user's code that torch names."""
    places = [line.strip() for line in str(exc).splitlines() if line.strip().startswith('File "')]
    where = f" ({places[-1]})" if places else ""
    return f"{type(exc).__name__}: {first_line(exc)}{where}"


def _drift(number: int, got: NDArray[Any], expected: NDArray[Any], shape: list[list[int]]) -> str:
    if got.shape != expected.shape:
        return f"output {number} is {list(got.shape)} where the module's is {list(expected.shape)}, inputs {shape}"
    return f"output {number} differs by up to {_distance(got, expected):.3g} on inputs of {shape}"


def _distance(got: NDArray[Any], expected: NDArray[Any]) -> float:
    if not got.size:
        return 0.0
    return float(np.nanmax(np.abs(got.astype(np.float64) - expected.astype(np.float64))))
