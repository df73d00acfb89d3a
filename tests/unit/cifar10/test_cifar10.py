"""The small CNN for CIFAR-10: its shape, its kept weights, and the example that trained them."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from jobs.errors import ModelFileError, UsageError
from tests.unit.cifar10.conftest import Import, Split
from worker.export import cifar10
from worker.export.export import export_classifier
from worker.export.weights_file import load_weights
from worker.models.card import ModelCard

#: Accuracy on the sample has a standard error of 2.7 points around that on the 10,000; this is three of them.
SAMPLE_MARGIN = 0.08


@pytest.fixture
def figures() -> dict[str, Any]:
    """What was written down when the kept weights were trained."""
    recorded: dict[str, Any] = json.loads(cifar10.WEIGHTS.with_suffix(".json").read_text())
    return recorded


def card() -> ModelCard:
    return ModelCard(name="cifar10-cnn", labels=cifar10.CLASSES, preprocessing=cifar10.PREPROCESSING)


def trained() -> cifar10.Cifar10CNN:
    network = cifar10.Cifar10CNN()
    load_weights(network, cifar10.WEIGHTS)
    return network.eval()


def tiny(recipe: ModuleType, count: int = 96) -> tuple[torch.Tensor, torch.Tensor]:
    """Random images whose class shows in their brightness."""
    random = np.random.default_rng(7)
    labels = np.arange(count, dtype=np.int64) % 10
    images = random.integers(0, 30, (count, 32, 32, 3)) + 22 * labels.reshape(-1, 1, 1, 1)
    pair: tuple[torch.Tensor, torch.Tensor] = recipe.tensors(images.astype(np.uint8), labels)
    return pair


# -- the network -----------------------------------------------------------------------------------


def test_the_network_is_three_convolutions_and_two_linear_layers() -> None:
    shapes = {name: tuple(value.shape) for name, value in cifar10.Cifar10CNN().named_parameters()}

    assert shapes == {
        "conv1.weight": (16, 3, 3, 3),
        "conv1.bias": (16,),
        "conv2.weight": (32, 16, 3, 3),
        "conv2.bias": (32,),
        "conv3.weight": (64, 32, 3, 3),
        "conv3.bias": (64,),
        "fc1.weight": (512, 1024),
        "fc1.bias": (512,),
        "fc2.weight": (10, 512),
        "fc2.bias": (10,),
    }
    assert sum(value.numel() for value in cifar10.Cifar10CNN().parameters()) == 553_514


@pytest.mark.parametrize("count", [1, 2, 5])
def test_the_network_gives_ten_logits_an_image(count: int) -> None:
    with torch.inference_mode():
        logits = trained()(torch.zeros(count, 3, *cifar10.INPUT_SIZE))

    assert logits.shape == (count, len(cifar10.CLASSES))
    assert logits.dtype == torch.float32


def test_dropout_is_off_when_the_network_answers_and_on_when_it_learns() -> None:
    network, images = trained(), torch.ones(1, 3, *cifar10.INPUT_SIZE)

    with torch.inference_mode():
        assert torch.equal(network(images), network(images))
        network.train()
        assert not torch.equal(network(images), network(images))
    assert network.dropout.p == 0.3


# -- the kept weights ------------------------------------------------------------------------------


def test_the_kept_weights_are_those_that_were_recorded(figures: dict[str, Any]) -> None:
    assert hashlib.sha256(cifar10.WEIGHTS.read_bytes()).hexdigest() == figures["sha256"]
    assert figures["classes"] == list(cifar10.CLASSES)
    assert figures["test_accuracy"] == figures["history"][-1]["test_accuracy"]


def test_the_kept_weights_load_strictly_and_as_tensors_only() -> None:
    state = torch.load(cifar10.WEIGHTS, weights_only=True)

    assert {value.dtype for value in state.values()} == {torch.float32}
    assert torch.nn.Module.load_state_dict(cifar10.Cifar10CNN(), state, strict=True)


def test_the_recorded_accuracy_is_what_was_asked(figures: dict[str, Any]) -> None:
    assert figures["test_accuracy"] >= 0.80


def test_running_the_example_again_follows_the_recipe_of_the_kept_weights(
    figures: dict[str, Any], example: Import
) -> None:
    assert figures["recipe"] == asdict(example("recipe").Recipe())


def test_the_kept_weights_know_the_sample(sample: Split, figures: dict[str, Any], example: Import) -> None:
    recipe = example("recipe")

    _, accuracy = recipe.measure(trained(), recipe.tensors(*sample))

    assert accuracy == pytest.approx(figures["test_accuracy"], abs=SAMPLE_MARGIN)


# -- training --------------------------------------------------------------------------------------


def test_the_same_seed_gives_the_same_weights_and_another_seed_others(example: Import) -> None:
    recipe, write = example("recipe"), example("train").weights_bytes
    images = tiny(recipe)

    def weights(seed: int) -> bytes:
        torch.rand(seed)  # what ran before must not matter
        settings = recipe.Recipe(seed=seed, epochs=1, batch=32)
        written: bytes = write(recipe.train(images, images, settings)[0])
        return written

    first = weights(seed=1)
    assert weights(seed=1) == first
    assert weights(seed=2) != first


def test_training_lowers_the_loss_and_reports_each_epoch(example: Import) -> None:
    recipe = example("recipe")
    images = tiny(recipe)
    done: list[int] = []
    reported: list[tuple[int, Any]] = []

    _, history = recipe.train(
        images,
        images,
        recipe.Recipe(epochs=6, batch=16),
        on_step=done.append,
        on_epoch=lambda number, epoch: reported.append((number, epoch)),
    )

    assert history[-1].test_loss < history[0].test_loss
    assert done == [16, 32, 48, 64, 80, 96] * 6
    assert reported == list(enumerate(history, 1))


def test_training_leaves_torch_as_it_was(example: Import) -> None:
    recipe = example("recipe")
    images, state, threads = tiny(recipe), torch.get_rng_state(), torch.get_num_threads()

    recipe.train(images, images, recipe.Recipe(epochs=1))

    assert torch.equal(torch.get_rng_state(), state)
    assert torch.get_num_threads() == threads
    assert not torch.are_deterministic_algorithms_enabled()


@pytest.mark.parametrize(
    "wrong", [{"epochs": 0}, {"batch": 0}, {"learning_rate": 0.0}, {"warmup": 1.0}, {"border": 32}]
)
def test_a_recipe_that_cannot_be_trained_is_refused(example: Import, wrong: dict[str, float]) -> None:
    with pytest.raises(UsageError):
        example("recipe").Recipe(**wrong)


def test_an_output_that_cannot_be_written_ends_before_the_training(
    tmp_path: Path, example: Import, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").touch()

    status = example("train").main(["--output", str(tmp_path / "file"), "--cache", str(tmp_path / "cache")])

    assert status == UsageError.exit_code
    assert capsys.readouterr().err == f"error: {tmp_path / 'file'} cannot be written to (File exists)\n"
    assert not (tmp_path / "cache").exists()


def test_augmentation_gives_a_shifted_window_or_its_mirror(example: Import) -> None:
    recipe = example("recipe")
    image = torch.randint(0, 256, (1, 3, 32, 32), dtype=torch.uint8)
    bordered = torch.nn.functional.pad(image, (2, 2, 2, 2), mode="reflect")[0]
    windows = [bordered[:, y : y + 32, x : x + 32] for y in range(5) for x in range(5)]
    wanted = {view.contiguous().numpy().tobytes() for w in windows for view in (w, w.flip(-1))}

    augmented = recipe.augment(image.expand(400, -1, -1, -1), 2, torch.Generator().manual_seed(0))

    found = {one.contiguous().numpy().tobytes() for one in augmented}
    assert found <= wanted
    assert len(found) == len(wanted)


def test_what_is_saved_is_weights_figures_and_a_picture_of_both_curves(tmp_path: Path, example: Import) -> None:
    recipe, train = example("recipe"), example("train")
    images, settings = tiny(recipe), recipe.Recipe(epochs=3, batch=32)
    model, history = recipe.train(images, images, settings)

    train.save(model, history, settings, tmp_path)

    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "cifar10-cnn.json",
        "cifar10-cnn.pth",
        "curves.png",
    ]
    again = cifar10.Cifar10CNN()
    load_weights(again, tmp_path / "cifar10-cnn.pth")
    assert recipe.measure(again, images) == (history[-1].test_loss, history[-1].test_accuracy)
    saved = json.loads((tmp_path / "cifar10-cnn.json").read_text())
    assert saved["history"] == [asdict(epoch) for epoch in history]
    assert saved["recipe"] == asdict(settings)
    pixels = np.asarray(Image.open(tmp_path / "curves.png")).reshape(-1, 3)
    colours = {tuple(pixel) for pixel in np.unique(pixels, axis=0).tolist()}
    curves = example("curves")
    assert {tuple(bytes.fromhex(one[1:])) for one in (curves.TRAINING, curves.TEST)} <= colours


# -- model files ----------------------------------------------------------------------------------


def test_onnx_and_torchscript_answer_as_the_module_does(tmp_path: Path, sample: Split, example: Import) -> None:
    files = [tmp_path / "cnn.onnx", tmp_path / "cnn.pt"]
    for file, file_format in zip(files, ("onnx", "torchscript"), strict=True):
        export_classifier(trained(), card(), file, file_format=file_format)

    eager, *others = example("evaluate").compare(cifar10.WEIGHTS, [str(file) for file in files], *sample)

    for other in others:
        assert np.array_equal(other.answers, eager.answers)
        assert other.accuracy == eager.accuracy


def test_a_model_of_other_classes_is_not_compared(sample: Split, example: Import) -> None:
    with pytest.raises(ModelFileError, match="noop is no model of CIFAR-10's ten classes"):
        example("evaluate").compare(cifar10.WEIGHTS, ["noop"], *sample)


@pytest.mark.slow
def test_all_ten_thousand_answers_are_right_as_often_in_every_runtime(
    tmp_path: Path, figures: dict[str, Any], example: Import
) -> None:
    data = example("data").load()
    files = [tmp_path / "cnn.onnx", tmp_path / "cnn.pt"]
    for file, file_format in zip(files, ("onnx", "torchscript"), strict=True):
        export_classifier(trained(), card(), file, file_format=file_format)

    measured = example("evaluate").compare(
        cifar10.WEIGHTS, [str(file) for file in files], data.test_images, data.test_labels
    )

    for one in measured:
        assert one.accuracy == pytest.approx(100 * figures["test_accuracy"], abs=0.05)
        assert one.accuracy >= 80
