"""torch.export: captured, compared, saved, and compiled ahead of time."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from cells import GatedCell, PlainCell, branch_line, cell_inputs, signed_inputs

from jobs.errors import ModelUnsupportedError, TraceError
from worker.cli import main
from worker.export.compare import largest_difference
from worker.export.prepare import prepare
from worker.export.torch_export import compiled_ahead, to_torch_export
from worker.models import golden, loader
from worker.models.timing import sample_images


def test_a_cell_of_two_inputs_is_captured_with_a_free_batch(tmp_path: Path) -> None:
    cell = PlainCell()
    captured = to_torch_export(cell, cell_inputs())

    torch.export.save(captured.program, tmp_path / "cell.pt2")

    loaded = torch.export.load(tmp_path / "cell.pt2").module()
    assert largest_difference(cell, loaded, signed_inputs()) < 1e-6


def test_a_branch_on_data_is_refused_with_its_line_and_what_to_try() -> None:
    with pytest.raises(TraceError) as caught:
        to_torch_export(GatedCell(), cell_inputs())

    assert f"line {branch_line()}" in caught.value.message
    assert "--format torchscript" in caught.value.message
    assert "\n" not in caught.value.message


def test_scripting_is_not_of_torch_export(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    target = tmp_path / "c.pt2"
    arguments = ["--arch", "cifar10-cnn", "--format", "torch_export", "--method", "script", "--output", str(target)]

    assert main(["export", *arguments]) == 2

    assert "--method script" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_without_a_compiler_the_message_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = prepare("cifar10-cnn", file_format="torch_export", model_dir=tmp_path)
    monkeypatch.setenv("PATH", str(tmp_path))

    assert main(["bench", str(path), "--compile", "--batches", "1", "--threads", "1", "--seconds", "0.01"]) == 16

    assert "install g++" in capsys.readouterr().err


@pytest.mark.slow
def test_compiled_ahead_of_time_it_answers_the_same(tmp_path: Path) -> None:
    path = prepare("cifar10-cnn", file_format="torch_export", model_dir=tmp_path)
    if shutil.which("g++") is None:
        with pytest.raises(ModelUnsupportedError, match="compiler"), compiled_ahead(path):
            raise AssertionError("compiled without a compiler")
        return
    with compiled_ahead(path) as runtime:
        golden.verify(runtime)
        images = sample_images(runtime, 5)
        np.testing.assert_allclose(runtime.predict(images), loader.load(path).predict(images), rtol=1e-3, atol=1e-5)
