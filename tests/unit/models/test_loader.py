"""Finding a model file, taking its digest, and importing no more than its runtime."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from pathlib import Path

import pytest

from jobs.errors import ModelMissingError
from worker.models import loader
from worker.models.noop import NoopRuntime

LOAD = """
import sys
from worker.models import golden, loader
runtime = loader.load(sys.argv[1])
golden.verify(runtime)
print(",".join(name for name in ("torch", "torchvision", "onnx", "onnxruntime") if name in sys.modules))
"""
READ = """
import sys
from pathlib import Path
from worker.models import loader
card = loader.read_card(Path(sys.argv[1]))
heavy = ("torch", "torchvision", "onnx", "onnxruntime")
print(card.name, ",".join(name for name in heavy if name in sys.modules))
"""


def run(code: str, *arguments: object) -> str:
    command = [sys.executable, "-c", code, *map(str, arguments)]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


def test_a_worker_for_onnx_never_imports_torch(tiny_files: dict[str, Path]) -> None:
    assert run(LOAD, tiny_files["onnx"]) == "onnxruntime"


@pytest.mark.parametrize("kind", ["torchscript", "torch_export"])
def test_a_worker_for_torch_imports_neither_onnxruntime_nor_torchvision(kind: str, tiny_files: dict[str, Path]) -> None:
    assert run(LOAD, tiny_files[kind]) == "torch"


def test_the_noop_model_imports_no_runtime_at_all() -> None:
    assert run(LOAD, "noop") == ""


def test_a_card_is_read_without_any_runtime(model_file: Path) -> None:
    assert run(READ, model_file) == "tiny"


def test_the_digest_is_the_sha256_of_the_file(model_file: Path) -> None:
    assert loader.digest(model_file) == "sha256:" + hashlib.sha256(model_file.read_bytes()).hexdigest()
    assert loader.load(model_file).digest == loader.digest(model_file)


def test_a_name_is_looked_up_in_the_model_folder(tiny_files: dict[str, Path]) -> None:
    folder = tiny_files["onnx"].parent

    assert loader.resolve("tiny", model_dir=folder) == tiny_files["onnx"]
    assert loader.resolve("tiny.pt", model_dir=folder) == tiny_files["torchscript"]


def test_a_path_is_taken_as_it_is(model_file: Path) -> None:
    assert loader.resolve(model_file) == model_file
    assert loader.resolve(str(model_file)) == model_file


def test_an_unknown_name_says_what_there_is_and_how_to_make_it(tiny_files: dict[str, Path]) -> None:
    with pytest.raises(ModelMissingError) as caught:
        loader.resolve("efficientnet-lite0", model_dir=tiny_files["onnx"].parent)

    assert "tiny" in caught.value.message
    assert "noop" in caught.value.message
    assert "labelmill-worker prepare efficientnet-lite0" in caught.value.message
    assert caught.value.exit_code == 12


def test_a_missing_path_is_named(tmp_path: Path) -> None:
    with pytest.raises(ModelMissingError, match="no such model file"):
        loader.resolve(tmp_path / "gone.onnx")


def test_the_model_folder_comes_from_the_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("LABELMILL_MODEL_DIR", str(tmp_path))
    assert loader.default_model_dir() == tmp_path

    monkeypatch.delenv("LABELMILL_MODEL_DIR")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert loader.default_model_dir() == tmp_path / "labelmill" / "models" / "v1"

    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert loader.default_model_dir() == tmp_path / ".cache" / "labelmill" / "models" / "v1"


def test_noop_can_be_given_a_number_of_labels() -> None:
    runtime = loader.load("noop:1000")

    assert isinstance(runtime, NoopRuntime)
    assert len(runtime.card.labels) == 1000
    assert runtime.digest != loader.load("noop").digest


@pytest.mark.parametrize("name", ["noop:", "noop:x", "noop:0", "noop:-1"])
def test_a_noop_of_no_known_form_is_refused(name: str) -> None:
    with pytest.raises(ModelMissingError, match="number of labels"):
        loader.load(name)
