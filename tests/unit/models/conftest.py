"""Two tiny model files of ours, one for each runtime, from one seeded network of 16 x 16 pixels."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from tiny import tiny_card, tiny_network

from worker.export.export import export_classifier
from worker.models import loader
from worker.models.runtime import Runtime

SUFFIX = {"onnx": ".onnx", "torchscript": ".pt", "torch_export": ".pt2"}


@pytest.fixture(scope="session")
def tiny_files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Format -> file."""
    folder = tmp_path_factory.mktemp("models")
    files = {kind: folder / f"tiny{suffix}" for kind, suffix in SUFFIX.items()}
    for kind, path in files.items():
        export_classifier(tiny_network(), tiny_card(), path, file_format=kind)
    return files


@pytest.fixture(params=["noop", *SUFFIX])
def runtime(request: pytest.FixtureRequest, tiny_files: dict[str, Path]) -> Runtime:
    """Every implementation of the contract."""
    return loader.load(tiny_files.get(request.param, request.param))


@pytest.fixture(params=list(SUFFIX))
def model_file(request: pytest.FixtureRequest, tiny_files: dict[str, Path]) -> Path:
    """A file of each format."""
    return tiny_files[request.param]


@pytest.fixture
def copy_of(tmp_path: Path) -> Callable[[Path], Path]:
    """A copy that a test may damage."""

    def copy(path: Path) -> Path:
        target = tmp_path / path.name
        target.write_bytes(path.read_bytes())
        return target

    return copy
