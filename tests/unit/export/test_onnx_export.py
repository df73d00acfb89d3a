"""ONNX: one file, a free batch, named ends, and the same answers in ONNX Runtime as in eager PyTorch."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch
from cells import Gate, GatedCell, PlainCell, UnscriptableGate, branch_line, cell_inputs, signed_inputs
from torch import nn

from jobs.errors import ExportError, UsageError
from worker.export.onnx import to_onnx
from worker.models.torchscript import quiet_jit


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(11)


def agrees(path: Path, module: nn.Module) -> None:
    session = ort.InferenceSession(str(path))
    for x, h in signed_inputs():
        got = session.run(None, {"x": x.numpy(), "h": h.numpy()})
        with torch.inference_mode():
            expected = module(x, h)
        for one, other in zip(got, expected, strict=True):
            np.testing.assert_allclose(one, other.numpy(), rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("method", ["auto", "trace", "script"])
def test_a_cell_of_two_inputs_answers_as_in_eager_mode_at_every_batch_size(method: str, tmp_path: Path) -> None:
    cell = PlainCell()

    made = to_onnx(cell, cell_inputs(), tmp_path / "cell.onnx", method=method)

    assert made.method == ("script" if method == "script" else "trace")
    agrees(made.path, cell)


def test_the_gate_keeps_its_branch_as_an_if_node(tmp_path: Path) -> None:
    cell = GatedCell()

    made = to_onnx(cell, cell_inputs(), tmp_path / "cell.onnx")

    assert made.method == "script"
    assert "cells.py" in made.note
    assert "If" in {node.op_type for node in onnx.load(made.path).graph.node}
    agrees(made.path, cell)


def test_a_scripted_gate_in_a_plain_parent_keeps_its_branch(tmp_path: Path) -> None:
    with quiet_jit():
        cell = GatedCell(torch.jit.script(Gate()))

    agrees(to_onnx(cell, cell_inputs(), tmp_path / "cell.onnx").path, cell)


def test_a_branch_that_only_python_can_follow_is_an_error_and_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(ExportError) as caught:
        to_onnx(UnscriptableGate(), cell_inputs(), tmp_path / "cell.onnx")

    assert "\n" not in caught.value.message
    assert list(tmp_path.iterdir()) == []


def test_capturing_refuses_the_gate_and_names_the_line(tmp_path: Path) -> None:
    with pytest.raises(ExportError, match=rf"cells\.py.*{branch_line()}"):
        to_onnx(GatedCell(), cell_inputs(), tmp_path / "cell.onnx", method="trace")


def test_it_is_one_file_with_named_ends_and_a_free_batch(tmp_path: Path) -> None:
    to_onnx(PlainCell(), cell_inputs(), tmp_path / "cell.onnx", output_names=["y", "state"])

    assert [path.name for path in tmp_path.iterdir()] == ["cell.onnx"]
    graph = onnx.load(tmp_path / "cell.onnx").graph
    assert [node.name for node in graph.input] == ["x", "h"]
    assert [node.name for node in graph.output] == ["y", "state"]
    for end in (*graph.input, *graph.output):
        assert end.type.tensor_type.shape.dim[0].dim_param


@pytest.mark.parametrize("opset", [18, 21])
def test_the_opset_can_be_set(opset: int, tmp_path: Path) -> None:
    cell = PlainCell()

    made = to_onnx(cell, cell_inputs(), tmp_path / "cell.onnx", opset=opset)

    assert {entry.domain: entry.version for entry in onnx.load(made.path).opset_import}[""] == opset
    agrees(made.path, cell)


def test_constants_are_folded(tmp_path: Path) -> None:
    class Constants(nn.Module):
        def forward(self, x: torch.Tensor, h: torch.Tensor) -> torch.Tensor:
            return x + h * (torch.arange(4).float().sqrt() + 1).sum()

    made = to_onnx(Constants(), cell_inputs(), tmp_path / "constants.onnx")

    operators = [node.op_type for node in onnx.load(made.path).graph.node]
    assert sorted(operators) == ["Add", "Mul"]


@pytest.mark.parametrize("opset", [1, 99])
def test_an_opset_that_cannot_be_written_is_an_error_of_one_line(
    opset: int, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(UsageError, match=rf"opset {opset} cannot be written; ask for 7 to \d+") as caught:
        to_onnx(PlainCell(), cell_inputs(), tmp_path / "cell.onnx", opset=opset)

    assert "\n" not in caught.value.message
    assert capfd.readouterr().out == ""
    assert list(tmp_path.iterdir()) == []
