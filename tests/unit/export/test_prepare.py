"""The models of the house: made once, found at once, made anew when their weights are others."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from jobs.errors import ModelMissingError
from worker.export.prepare import prepare
from worker.models import golden, loader

SECOND_TIME = """
import sys
from pathlib import Path
from worker.export.prepare import prepare
print(prepare("cifar10-cnn", model_dir=Path(sys.argv[1])), "torch" in sys.modules, "onnxruntime" in sys.modules)
"""


def test_a_prepared_model_is_found_by_its_name(tmp_path: Path) -> None:
    path = prepare("cifar10-cnn", model_dir=tmp_path / "new" / "folder")

    assert loader.resolve("cifar10-cnn", model_dir=tmp_path / "new" / "folder") == path
    runtime = loader.load("cifar10-cnn", model_dir=tmp_path / "new" / "folder")
    assert (runtime.card.name, len(runtime.card.labels)) == ("cifar10-cnn", 10)
    golden.verify(runtime)


def test_the_second_time_nothing_is_made_and_torch_is_not_imported(tmp_path: Path) -> None:
    path = prepare("cifar10-cnn", model_dir=tmp_path)
    made = path.stat().st_mtime_ns

    command = [sys.executable, "-c", SECOND_TIME, str(tmp_path)]
    said = subprocess.run(command, check=True, capture_output=True, text=True).stdout

    assert said == f"{path} False False\n"
    assert path.stat().st_mtime_ns == made


@pytest.mark.parametrize("damage", ["cut short", "other weights"])
def test_a_file_that_is_not_what_would_be_made_is_made_anew(damage: str, tmp_path: Path) -> None:
    path = prepare("cifar10-cnn", file_format="torchscript", model_dir=tmp_path)
    good = loader.digest(path)
    if damage == "cut short":
        path.write_bytes(path.read_bytes()[:1000])
    else:
        from worker.export.export import export_classifier
        from worker.export.zoo import architecture

        network, card = architecture("cifar10-cnn")
        export_classifier(network, replace(card, source="somewhere else"), path, file_format="torchscript")
    assert loader.digest(path) != good

    prepare("cifar10-cnn", file_format="torchscript", model_dir=tmp_path)

    golden.verify(loader.load(path))
    assert "cifar10-cnn.pth sha256:" in loader.read_card(path).source
    assert [entry.name for entry in tmp_path.iterdir()] == ["cifar10-cnn.pt"]


def test_a_name_without_a_recipe_says_which_there_are(tmp_path: Path) -> None:
    with pytest.raises(ModelMissingError, match=r"cifar10-cnn, efficientnet-lite0.*labelmill-worker export"):
        prepare("densenet161", model_dir=tmp_path)

    assert list(tmp_path.iterdir()) == []
