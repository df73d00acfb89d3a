"""Tracing that tells the truth, scripting, and the two mixed."""

from __future__ import annotations

import io

import pytest
import torch
from cells import (
    Gate,
    GatedCell,
    PlainCell,
    Unscriptable,
    UnscriptableAroundGate,
    UnscriptableGate,
    branch_line,
    cell_inputs,
    signed_inputs,
)
from torch import nn

from jobs.errors import ScriptError, TraceError, UsageError
from worker.export.compare import largest_difference
from worker.export.torchscript import Scripted, to_torchscript
from worker.models.torchscript import quiet_jit


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(11)


def saved_and_loaded(made: Scripted) -> torch.jit.ScriptModule:
    buffer = io.BytesIO()
    with quiet_jit():
        torch.jit.save(made.module, buffer)
        buffer.seek(0)
        return torch.jit.load(buffer)


@pytest.mark.parametrize("method", ["auto", "trace", "script"])
def test_a_cell_of_two_inputs_answers_as_in_eager_mode_by_every_method(method: str) -> None:
    cell = PlainCell()

    made = to_torchscript(cell, cell_inputs(), method=method)

    assert made.method == ("script" if method == "script" else "trace")
    assert largest_difference(cell, saved_and_loaded(made), signed_inputs()) < 1e-6


def test_a_bare_trace_of_the_gate_loses_the_branch() -> None:
    """Why all this is needed: torch itself gives the wrong module without an error."""
    cell = GatedCell().eval()
    x, h = cell_inputs()
    with quiet_jit(), pytest.warns(torch.jit._trace.TracerWarning):
        traced = torch.jit.trace(cell, (x, h), check_trace=False)

    sides = [(traced(sign * x, h)[0] - cell(sign * x, h)[0]).abs().max().item() < 1e-6 for sign in (10, -10)]
    assert sorted(sides) == [False, True]


def test_auto_turns_to_scripting_where_the_trace_drifts() -> None:
    cell = GatedCell()

    made = to_torchscript(cell, cell_inputs(), method="auto")

    assert made.method == "script"
    assert "branch on data" in made.note
    assert largest_difference(cell, saved_and_loaded(made), signed_inputs()) < 1e-6


def test_trace_stops_with_an_error_that_names_the_branch() -> None:
    with pytest.raises(TraceError) as caught:
        to_torchscript(GatedCell(), cell_inputs(), method="trace")

    assert "branch on data" in caught.value.message
    assert f"cells.py:{branch_line()}" in caught.value.message
    assert "--method script" in caught.value.message
    assert "\n" not in caught.value.message
    assert caught.value.exit_code == 20


@pytest.mark.parametrize("method", ["trace", "script", "auto"])
def test_a_scripted_gate_inside_a_parent_keeps_its_branch(method: str) -> None:
    with quiet_jit():
        cell = GatedCell(torch.jit.script(Gate()))

    made = to_torchscript(cell, cell_inputs(), method=method)

    assert made.method == ("script" if method == "script" else "trace")
    assert largest_difference(cell, saved_and_loaded(made), signed_inputs()) < 1e-6


def test_auto_scripts_the_parts_that_can_be_where_the_whole_cannot() -> None:
    module = UnscriptableAroundGate()

    made = to_torchscript(module, cell_inputs(), method="auto")

    assert made.method == "mixed"
    assert largest_difference(module, saved_and_loaded(made), signed_inputs()) < 1e-6


def test_a_module_that_cannot_be_scripted_says_why_and_what_to_try() -> None:
    with pytest.raises(ScriptError) as caught:
        to_torchscript(Unscriptable(), cell_inputs(), method="script")

    assert "Unscriptable cannot be scripted" in caught.value.message
    assert "cells.py" in caught.value.message
    assert "--method trace" in caught.value.message
    assert "\n" not in caught.value.message
    assert caught.value.exit_code == 21


def test_where_nothing_works_both_reasons_are_given() -> None:
    with pytest.raises(TraceError) as caught:
        to_torchscript(UnscriptableGate(), cell_inputs(), method="auto")

    assert "branch on data" in caught.value.message
    assert "cannot be scripted" in caught.value.message
    assert "\n" not in caught.value.message


def test_a_drift_without_a_branch_is_found_too() -> None:
    class Counted(nn.Module):
        def forward(self, x: torch.Tensor, h: torch.Tensor) -> torch.Tensor:
            return x * len(x) + h

    with pytest.raises(TraceError, match="does not compute what the module does"):
        to_torchscript(Counted(), cell_inputs(), method="trace")


def test_an_unknown_method_is_refused() -> None:
    with pytest.raises(UsageError, match="one of auto, trace, script"):
        to_torchscript(PlainCell(), cell_inputs(), method="magic")
