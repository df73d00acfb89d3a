"""Every road from a network to a served file, and the same answers at the end of each."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from cells import BatchGate, ImageGate, branch_line
from torch import nn

from jobs.errors import ExportError, ModelCardError, ScriptError, TraceError
from worker.export import efficientnet
from worker.export.classifier import as_classifier
from worker.export.export import export_classifier
from worker.export.prepare import prepare
from worker.export.torchscript import to_torchscript
from worker.export.weights_file import load_weights
from worker.export.zoo import architecture
from worker.models import golden, loader
from worker.models.card import ModelCard, Preprocessing

SUFFIX = {"onnx": ".onnx", "torchscript": ".pt", "torch_export": ".pt2"}
#: Format, method asked for, method that does it.
ROADS = [
    ("onnx", "auto", "trace"),
    ("onnx", "trace", "trace"),
    ("onnx", "script", "script"),
    ("torchscript", "auto", "trace"),
    ("torchscript", "trace", "trace"),
    ("torchscript", "script", "script"),
    ("torch_export", "auto", "trace"),
]


def gate_card() -> ModelCard:
    return ModelCard(
        name="gate",
        labels=("red", "green", "blue"),
        preprocessing=Preprocessing(resize=12, crop=(12, 12), mean=(0.5,) * 3, std=(0.5,) * 3),
    )


def served_as_in_eager_mode(path: Path, network: nn.Module, card: ModelCard) -> None:
    """Load as a worker does, and compare at batch sizes 1, 2 and 5 on images that the export has not seen."""
    runtime = loader.load(path)
    golden.verify(runtime)
    generator = np.random.default_rng(77)
    for batch in (1, 2, 5):
        images = generator.integers(0, 256, (batch, *card.preprocessing.size, 3), np.uint8)
        images[0] //= 9
        with torch.inference_mode():
            expected = as_classifier(network, card)(torch.from_numpy(images)).numpy()
        np.testing.assert_allclose(runtime.predict(images), expected, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize(("file_format", "method", "by"), ROADS)
def test_cifar10_cnn_by_every_road(file_format: str, method: str, by: str, tmp_path: Path) -> None:
    network, card = architecture("cifar10-cnn")
    target = tmp_path / f"cifar10-cnn{SUFFIX[file_format]}"

    report = export_classifier(network, card, target, file_format=file_format, method=method)

    assert report.method == by
    assert report.largest_difference < 1e-5
    assert report.digest == loader.digest(target)
    served_as_in_eager_mode(target, network, card)


@pytest.mark.slow
@pytest.mark.parametrize(("file_format", "method", "by"), ROADS)
def test_efficientnet_lite0_by_every_road(file_format: str, method: str, by: str, tmp_path: Path) -> None:
    network, card = architecture("efficientnet-lite0")
    target = tmp_path / f"lite0{SUFFIX[file_format]}"

    report = export_classifier(network, card, target, file_format=file_format, method=method)

    assert report.method == by
    served_as_in_eager_mode(target, network, card)


def test_efficientnet_lite0_is_rebuilt_bit_for_bit_and_the_file_that_is_prepared_answers_as_it_does() -> None:
    original, card = efficientnet.network(), efficientnet.card()
    load_weights(original, efficientnet.weights_file())
    prepared = prepare("efficientnet-lite0")
    images = golden.golden_images(224, 224)[:2]

    with torch.inference_mode():
        expected = as_classifier(original, card)(torch.from_numpy(images))
        rebuilt = as_classifier(architecture("efficientnet-lite0")[0], card)(torch.from_numpy(images))

    assert torch.equal(rebuilt, expected)
    np.testing.assert_allclose(loader.load(prepared).predict(images), expected.numpy(), rtol=1e-3, atol=1e-5)


def test_code_that_cannot_be_scripted_is_named_with_its_place(tmp_path: Path) -> None:
    network = efficientnet.network()

    with pytest.raises(ScriptError) as caught:
        to_torchscript(network, (torch.zeros(2, 3, 224, 224),), method="script", probes=[])

    assert "efficientnet_lite_pytorch/model.py" in caught.value.message


@pytest.mark.parametrize("file_format", ["onnx", "torchscript"])
def test_a_gated_image_network_keeps_its_branch_in_the_file(file_format: str, tmp_path: Path) -> None:
    torch.manual_seed(1)
    network, target = ImageGate(), tmp_path / f"gate{SUFFIX[file_format]}"

    report = export_classifier(network, gate_card(), target, file_format=file_format)

    assert report.method == "script"
    assert f"{branch_line()}" in report.note
    served_as_in_eager_mode(target, network, gate_card())


def test_a_network_whose_answers_depend_on_the_neighbours_in_a_batch_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ExportError, match="depends on the other images of its batch"):
        export_classifier(BatchGate(), gate_card(), tmp_path / "gate.pt", file_format="torchscript")

    assert list(tmp_path.iterdir()) == []


def test_a_gated_image_network_is_not_traced(tmp_path: Path) -> None:
    with pytest.raises(TraceError, match=rf"cells\.py:{branch_line()}"):
        export_classifier(ImageGate(), gate_card(), tmp_path / "gate.pt", file_format="torchscript", method="trace")

    assert list(tmp_path.iterdir()) == []


def test_an_export_takes_the_place_of_an_older_file_only_when_it_is_whole(tmp_path: Path) -> None:
    target = tmp_path / "gate.pt"
    target.write_bytes(b"the older one")

    with pytest.raises(TraceError):
        export_classifier(ImageGate(), gate_card(), target, file_format="torchscript", method="trace")

    assert target.read_bytes() == b"the older one"
    assert list(tmp_path.iterdir()) == [target]


def test_labels_that_do_not_match_the_outputs_are_refused(tmp_path: Path) -> None:
    card = replace(gate_card(), labels=("red", "green"))

    with pytest.raises(ModelCardError, match="3 scores an image but the card has 2 labels"):
        export_classifier(ImageGate(), card, tmp_path / "gate.onnx")


def test_a_network_that_fails_on_such_images_is_refused_with_its_message(tmp_path: Path) -> None:
    network = nn.Sequential(nn.Flatten(), nn.Linear(7, 3))

    with pytest.raises(ExportError, match="12 x 12") as caught:
        export_classifier(network, gate_card(), tmp_path / "flat.onnx")

    assert "\n" not in caught.value.message


@pytest.mark.parametrize("activation", ["softmax", "sigmoid", "none"])
def test_the_head_is_part_of_the_file(activation: str, tmp_path: Path) -> None:
    torch.manual_seed(1)
    network = nn.Sequential(nn.Conv2d(3, 3, 12), nn.Flatten())
    card = replace(gate_card(), activation=activation, top_k=2, version="7")

    export_classifier(network, card, tmp_path / "head.pt", file_format="torchscript")

    images = golden.golden_images(12, 12)
    with torch.inference_mode():
        logits = network((torch.from_numpy(images).permute(0, 3, 1, 2).float() / 255 - 0.5) / 0.5)
    heads = {"softmax": logits.softmax(1), "sigmoid": logits.sigmoid(), "none": logits}
    runtime = loader.load(tmp_path / "head.pt")
    np.testing.assert_allclose(runtime.predict(images), heads[activation].numpy(), rtol=1e-4, atol=1e-5)
    assert (runtime.card.top_k, runtime.card.version) == (2, "7")


def test_a_network_trained_on_bgr_gets_bgr(tmp_path: Path) -> None:
    card = replace(gate_card(), preprocessing=replace(gate_card().preprocessing, color_order="BGR"))
    network = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())

    export_classifier(network, card, tmp_path / "bgr.pt", file_format="torchscript")

    red = np.zeros((1, 12, 12, 3), np.uint8)
    red[..., 0] = 255
    assert loader.load(tmp_path / "bgr.pt").predict(red).argmax() == 2


@pytest.fixture(scope="module")
def densenet161_weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Random weights, saved as a training script saves them."""
    from worker.export.vision import vision

    path = tmp_path_factory.mktemp("weights") / "densenet161.pth"
    torch.manual_seed(8)
    torch.save(vision().models.densenet161(weights=None).state_dict(), path)
    return path


def densenet161(weights: Path, target: Path, file_format: str, method: str) -> None:
    network, card = architecture("densenet161", weights)
    report = export_classifier(network, card, target, file_format=file_format, method=method)

    assert report.largest_difference < 1e-5
    served_as_in_eager_mode(target, network, card)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("file_format", "method"),
    [
        ("onnx", "auto"),
        ("onnx", "script"),
        ("torchscript", "auto"),
        ("torchscript", "script"),
        ("torch_export", "auto"),
    ],
)
def test_densenet161_by_every_road(file_format: str, method: str, densenet161_weights: Path, tmp_path: Path) -> None:
    densenet161(densenet161_weights, tmp_path / f"densenet161{SUFFIX[file_format]}", file_format, method)
