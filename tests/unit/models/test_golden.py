"""The golden sample: the same images everywhere, and no file with other weights passes."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from plain import with_changed_weights
from tiny import tiny_card, tiny_network

from jobs.errors import GoldenSampleError, ModelCardError
from worker.export.classifier import as_classifier
from worker.models import golden, loader
from worker.models.card import CARD_KEY, ModelCard
from worker.models.torchscript import quiet_jit


def test_the_images_are_the_same_on_every_machine() -> None:
    images = golden.golden_images(16, 12)

    assert images.shape == (4, 16, 12, 3)
    assert images.dtype == np.uint8
    digest = hashlib.sha256(images.tobytes()).hexdigest()
    assert digest == "babf3858ed0e6065f845cc0870eed11652b2854f61920e8157d805f61445c73b"


def test_the_images_differ_in_brightness_and_contrast() -> None:
    noise, dark, bright, blocks = golden.golden_images(64, 64).astype(float)

    assert dark.max() < 32
    assert bright.min() > 223
    assert noise.std() > 60
    assert len(np.unique(blocks.reshape(-1, 3), axis=0)) <= 64


def with_card(path: Path, change: Callable[[ModelCard], ModelCard]) -> None:
    model = onnx.load(path)
    entry = next(entry for entry in model.metadata_props if entry.key == CARD_KEY)
    entry.value = change(ModelCard.from_json(entry.value)).to_json()
    onnx.save_model(model, path)


def refused(path: Path) -> GoldenSampleError:
    with pytest.raises(GoldenSampleError) as caught:
        golden.verify(loader.load(path))
    assert "\n" not in caught.value.message
    assert caught.value.exit_code == 11
    return caught.value


@pytest.mark.parametrize("factor", [1.01, 0.5, -1, float("nan")])
def test_an_onnx_file_with_changed_weights_is_refused(
    factor: float, tiny_files: dict[str, Path], copy_of: Callable[[Path], Path]
) -> None:
    copy = copy_of(tiny_files["onnx"])
    with_changed_weights(copy, factor)

    assert "differently" in refused(copy).message


@pytest.mark.parametrize("factor", [1.01, 0.5, -1, float("nan")])
def test_a_torchscript_file_with_changed_weights_is_refused(
    factor: float, tiny_files: dict[str, Path], tmp_path: Path
) -> None:
    extra = {CARD_KEY: ""}
    with quiet_jit():
        module = torch.jit.load(str(tiny_files["torchscript"]), _extra_files=extra)
        with torch.no_grad():
            next(module.parameters()).mul_(factor)
        torch.jit.save(module, str(tmp_path / "tiny.pt"), _extra_files=extra)

    assert "differently" in refused(tmp_path / "tiny.pt").message


def test_a_model_exported_with_its_channels_swapped_is_refused(tiny_files: dict[str, Path], tmp_path: Path) -> None:
    card = loader.read_card(tiny_files["torchscript"])
    swapped = replace(card, preprocessing=replace(card.preprocessing, color_order="BGR"))
    with quiet_jit():
        script = torch.jit.script(as_classifier(tiny_network(), swapped))
        torch.jit.save(script, str(tmp_path / "tiny.pt"), _extra_files={CARD_KEY: card.to_json().encode()})

    refused(tmp_path / "tiny.pt")


def test_a_sample_of_another_model_is_refused(tiny_files: dict[str, Path], copy_of: Callable[[Path], Path]) -> None:
    copy = copy_of(tiny_files["onnx"])
    other = golden.make(np.full((4, 7), 1 / 7, np.float32))
    with_card(copy, lambda card: replace(card, golden=other))

    refused(copy)


@pytest.mark.parametrize(
    "change",
    [
        {"generator": "dice"},
        {"images": [["sunset", 1]]},
        {"scores": "AAAA"},
        {"scores": "%"},
        {"rtol": "much"},
        {"rtol": 1e999},
        {"atol": 3},
        {},
    ],
)
def test_a_sample_that_cannot_be_read_is_an_error_of_the_card(
    change: dict[str, object], tiny_files: dict[str, Path], copy_of: Callable[[Path], Path]
) -> None:
    copy = copy_of(tiny_files["onnx"])
    with_card(copy, lambda card: replace(card, golden={**(card.golden or {}), **change} if change else {}))

    with pytest.raises(ModelCardError, match="golden sample"):
        golden.verify(loader.load(copy))


def test_a_file_without_a_sample_is_not_held_up(tiny_files: dict[str, Path], copy_of: Callable[[Path], Path]) -> None:
    copy = copy_of(tiny_files["onnx"])
    with_card(copy, lambda card: replace(card, golden=None))

    golden.verify(loader.load(copy))


def test_the_expected_scores_are_those_of_eager_pytorch(model_file: Path) -> None:
    sample = loader.read_card(model_file).golden
    assert sample is not None
    stored = np.frombuffer(base64.b64decode(sample["scores"]), "<f4").reshape(4, 7)

    with torch.inference_mode():
        eager = as_classifier(tiny_network(), tiny_card())(torch.from_numpy(golden.golden_images(16, 16)))

    np.testing.assert_array_equal(stored, eager.numpy())
