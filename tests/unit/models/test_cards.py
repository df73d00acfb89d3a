"""The card: inside the file, beside it, or in flags; labels in every form they are found in."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from plain import CLASSES, SIZE, plain_onnx, plain_torchscript

from jobs.errors import ModelCardError, ModelCorruptError
from worker.models import loader
from worker.models.card import CARD_KEY, ModelCard, Preprocessing
from worker.models.labels import parse_labels, read_labels
from worker.models.onnx_header import read_onnx_header

SIDECAR = {"labels": ["red", "green", "blue"], "preprocessing": {"resize": SIZE, "crop": [SIZE, SIZE]}}


@pytest.fixture(params=["onnx", "pt"])
def plain_file(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    return plain_onnx(tmp_path / "plain.onnx") if request.param == "onnx" else plain_torchscript(tmp_path / "plain.pt")


def beside(path: Path, document: object) -> None:
    path.with_name(path.name + ".json").write_text(json.dumps(document))


@pytest.mark.parametrize(
    "raw",
    [
        ["tench", "goldfish"],
        {"0": "tench", "1": "goldfish"},
        {"1": ["n01443537", "goldfish"], "0": ["n01440764", "tench"]},
    ],
)
def test_labels_are_read_in_every_form(raw: object, tmp_path: Path) -> None:
    assert parse_labels(raw) == ("tench", "goldfish")

    (tmp_path / "labels.json").write_text(json.dumps(raw))
    assert read_labels(tmp_path / "labels.json") == ("tench", "goldfish")


def test_labels_are_read_from_lines(tmp_path: Path) -> None:
    (tmp_path / "labels.txt").write_text("tench\ngoldfish\n\n")

    assert read_labels(tmp_path / "labels.txt") == ("tench", "goldfish")


@pytest.mark.parametrize("raw", [[], {}, "tench", 3, [1, 2], {"0": "tench", "2": "shark"}, {"1": "goldfish"}, [[]]])
def test_labels_of_no_known_form_are_refused(raw: object) -> None:
    with pytest.raises(ModelCardError, match="labels"):
        parse_labels(raw)


def test_a_labels_file_that_is_not_there_or_no_json_is_named(tmp_path: Path) -> None:
    with pytest.raises(ModelCardError, match=r"gone\.txt"):
        read_labels(tmp_path / "gone.txt")
    (tmp_path / "labels.json").write_text('["tench",')
    with pytest.raises(ModelCardError, match=r"labels\.json"):
        read_labels(tmp_path / "labels.json")


def test_a_card_survives_the_way_through_json() -> None:
    card = ModelCard(
        name="x",
        labels=("a", "b"),
        preprocessing=Preprocessing(resize=(9, 7), crop=None, interpolation="bicubic", color_order="BGR"),
        version="2",
        activation="sigmoid",
        top_k=2,
        golden={"scores": "AAAA"},
    )

    assert ModelCard.from_json(card.to_json()) == card


@pytest.mark.parametrize(
    "change",
    [
        {"schema": 99},
        {"labels": []},
        {"activation": "argmax"},
        {"input": "png"},
        {"surprise": 1},
        {"preprocessing": {"std": [1, 1, 0]}},
        {"preprocessing": {"mean": [1, 1]}},
        {"preprocessing": {"crop": [0, 4]}},
        {"preprocessing": {"crop": 4}},
        {"preprocessing": {"crop": [4]}},
        {"preprocessing": {"crop": []}},
        {"preprocessing": {"crop": [4, 4, 3]}},
        {"preprocessing": {"resize": [4]}},
        {"preprocessing": {"resize": True}},
        {"preprocessing": {"mean": ["a", "b", "c"]}},
        {"preprocessing": {"mean": [float("nan")] * 3}},
        {"preprocessing": {"scaled_decode": "no"}},
        {"preprocessing": {"interpolation": "magic"}},
        {"preprocessing": {"colour": "RGB"}},
        {"top_k": 0},
        {"top_k": 2.5},
        {"top_k": True},
        {"name": 3},
        {"version": 1},
        {"source": ["me"]},
    ],
)
def test_a_card_with_a_wrong_value_is_refused(change: dict[str, object]) -> None:
    document = {**json.loads(ModelCard(name="x", labels=("a",)).to_json()), **change}

    with pytest.raises(ModelCardError):
        ModelCard.from_json(json.dumps(document))


def test_a_plain_file_is_served_with_a_side_car(plain_file: Path) -> None:
    beside(plain_file, SIDECAR)

    runtime = loader.load(plain_file)
    images = np.zeros((2, SIZE, SIZE, 3), np.uint8)
    images[0, ..., 2] = 255
    images[1, ..., 0] = 255
    scores = runtime.predict(images)

    assert runtime.card.labels[scores[0].argmax()] == "blue"
    assert runtime.card.labels[scores[1].argmax()] == "red"
    np.testing.assert_allclose(scores.sum(axis=1), 1, rtol=1e-6)


def test_a_plain_file_that_was_trained_on_bgr_gets_bgr(plain_file: Path) -> None:
    beside(plain_file, {**SIDECAR, "preprocessing": {**SIDECAR["preprocessing"], "color_order": "BGR"}})

    images = np.zeros((1, SIZE, SIZE, 3), np.uint8)
    images[..., 0] = 255

    assert loader.load(plain_file).predict(images).argmax() == 2


def test_normalisation_outside_the_graph_is_the_one_of_torchvision(plain_file: Path) -> None:
    beside(plain_file, {**SIDECAR, "activation": "none"})
    images = np.random.default_rng(0).integers(0, 256, (3, SIZE, SIZE, 3), np.uint8)

    scores = loader.load(plain_file).predict(images)

    prep = Preprocessing()
    expected = ((images / 255 - prep.mean) / prep.std).mean(axis=(1, 2))
    np.testing.assert_allclose(scores, expected, rtol=1e-4, atol=1e-5)


def test_labels_of_a_side_car_may_be_in_a_file_beside_it(plain_file: Path) -> None:
    (plain_file.parent / "names.txt").write_text("red\ngreen\nblue\n")
    beside(plain_file, {**SIDECAR, "labels": "names.txt"})

    assert loader.read_card(plain_file).labels == ("red", "green", "blue")


def test_a_card_in_the_environment_stands_in_for_a_side_car(plain_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    card = ModelCard(
        name="any",
        labels=("red", "green", "blue"),
        preprocessing=Preprocessing(resize=SIZE, crop=(SIZE, SIZE)),
        input="float32_nchw",
        output="logits",
    )
    monkeypatch.setenv("LABELMILL_MODEL_CARD", card.to_json())

    assert loader.load(plain_file).card == replace(card, name="plain")


def test_a_plain_file_without_any_card_says_what_to_do(plain_file: Path) -> None:
    with pytest.raises(ModelCardError) as caught:
        loader.load(plain_file)

    assert plain_file.name + ".json" in caught.value.message
    assert "--labels" in caught.value.message
    assert caught.value.exit_code == 14


def test_two_cards_are_one_too_many(model_file: Path, copy_of: Callable[[Path], Path]) -> None:
    copy = copy_of(model_file)
    beside(copy, SIDECAR)

    with pytest.raises(ModelCardError, match="remove"):
        loader.load(copy)


def test_a_side_car_that_is_no_card_is_named(plain_file: Path) -> None:
    beside(plain_file, ["red"])

    with pytest.raises(ModelCardError, match=rf"{plain_file.name}\.json"):
        loader.load(plain_file)


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"foo": 1}, "no key 'foo'; known: name, labels"),
        ({"preprocessing": {"bar": 1}}, "preprocessing: no key 'bar'; known:"),
    ],
)
def test_a_key_that_no_side_car_has_is_named(plain_file: Path, more: dict[str, object], said: str) -> None:
    beside(plain_file, {**SIDECAR, **more})

    with pytest.raises(ModelCardError, match=rf"{plain_file.name}\.json: .*{said}"):
        loader.load(plain_file)


@pytest.mark.parametrize("labels", [["red", "green"], ["red", "green", "blue", "black"]])
def test_a_wrong_number_of_labels_is_an_error_at_load(labels: list[str], plain_file: Path) -> None:
    beside(plain_file, {**SIDECAR, "labels": labels})

    with pytest.raises(ModelCardError, match=f"{CLASSES} scores an image but the card has {len(labels)} labels"):
        loader.load(plain_file)


def test_the_header_says_whether_weights_are_elsewhere(tiny_files: dict[str, Path], tmp_path: Path) -> None:
    assert not read_onnx_header(tiny_files["onnx"]).external

    for size, external in ((0, True), (10**6, False)):
        path = tmp_path / f"{size}.onnx"
        onnx.save(onnx.load(tiny_files["onnx"]), path, save_as_external_data=True, size_threshold=size)
        assert read_onnx_header(path).external is external


def test_the_onnx_header_is_what_onnx_itself_reads(tiny_files: dict[str, Path]) -> None:
    header = read_onnx_header(tiny_files["onnx"])
    model = onnx.load(tiny_files["onnx"])

    assert header.ir_version == model.ir_version
    assert header.producer == model.producer_name
    assert header.opsets == {entry.domain: entry.version for entry in model.opset_import}
    assert header.metadata == {entry.key: entry.value for entry in model.metadata_props}
    assert ModelCard.from_json(header.metadata[CARD_KEY]).name == "tiny"


def test_a_header_cut_anywhere_is_an_error_and_never_a_crash(tiny_files: dict[str, Path], tmp_path: Path) -> None:
    whole = tiny_files["onnx"].read_bytes()
    cut = tmp_path / "cut.onnx"
    refused = 0
    lengths = range(0, len(whole), 23)
    for length in lengths:
        cut.write_bytes(whole[:length])
        try:
            read_onnx_header(cut)
        except ModelCorruptError:
            refused += 1
    # Between two fields a cut leaves a whole message: the header can be read, and the runtime finds what is missing.
    assert refused >= len(lengths) - len(onnx.load(tiny_files["onnx"]).metadata_props) - 12
