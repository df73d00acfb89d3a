"""INT8: calibrated on a folder, measured against float32, with a card and a golden sample of its own."""

from __future__ import annotations

import importlib
import json
import shutil
from pathlib import Path

import numpy as np
import onnx
import pytest
from PIL import Image

from jobs.errors import SourceError, UsageError
from worker.cli import main
from worker.export.calibrate import Histogram
from worker.export.frame import FRAMED
from worker.export.pictures import Pictures, read_pictures
from worker.export.pixels import NORMALISED
from worker.export.prepare import prepare
from worker.export.quantize import AGREEMENT, _divergence, agreement, quantize
from worker.models import golden, loader
from worker.models.noop import load_noop

#: 200 test images of CIFAR-10, one a row of the sheet; and their labels.
SAMPLE = Path(__file__).parents[2] / "data" / "cifar10-sample.png"

Capture = pytest.CaptureFixture[str]


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return prepare("cifar10-cnn", model_dir=tmp_path_factory.mktemp("models"))


@pytest.fixture(scope="session")
def folders(model: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Half of the sample to calibrate on, without classes; half to measure on, in a folder for each class."""
    root = tmp_path_factory.mktemp("pictures")
    labels = loader.read_card(model).labels
    sheet = np.asarray(Image.open(SAMPLE).convert("RGB")).reshape(-1, 32, 32, 3)
    classes = json.loads(SAMPLE.with_suffix(".json").read_text())
    for index, (image, label) in enumerate(zip(sheet, classes, strict=True)):
        folder = root / "calibration" if index % 2 else root / "evaluate" / labels[int(label)]
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(folder / f"{index}.png")
    return {"calibration": root / "calibration", "evaluate": root / "evaluate"}


@pytest.fixture(scope="session")
def quantised(model: Path, folders: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    target = tmp_path_factory.mktemp("int8") / "cifar10-int8.onnx"
    quantize(model, target, read_pictures(folders["calibration"], loader.read_card(model)))
    return target


def test_the_int8_file_answers_nearly_as_the_float_one(model: Path, quantised: Path, folders: dict[str, Path]) -> None:
    pictures = read_pictures(folders["evaluate"], loader.read_card(model))
    before, after = (loader.load(path).predict(pictures.images).argmax(axis=1) for path in (model, quantised))

    assert len(pictures.images) == 100
    assert (before == after).mean() >= 0.95
    accuracy = [(answer == pictures.classes).mean() for answer in (before, after)]
    assert accuracy[0] >= 0.75
    assert abs(accuracy[0] - accuracy[1]) <= 0.03


def test_it_is_qdq_with_a_scale_for_each_channel(quantised: Path) -> None:
    graph = onnx.load(quantised).graph
    scales = {tensor.name: list(tensor.dims) for tensor in graph.initializer}

    operators = [node.op_type for node in graph.node]
    assert "QuantizeLinear" in operators
    per_channel = [
        scales[node.input[1]]
        for node in graph.node
        if node.op_type == "DequantizeLinear" and len(scales.get(node.input[1], [])) == 1
    ]
    assert [16] in per_channel or [32] in per_channel or [64] in per_channel


def test_channels_with_means_of_their_own_are_taken_as_bytes_too_in_a_frame(model: Path, quantised: Path) -> None:
    assert len(set(loader.read_card(model).preprocessing.mean)) == 3

    graph = onnx.load(quantised).graph
    names = {name for node in graph.node for name in node.input}
    assert FRAMED in names
    assert NORMALISED not in names
    assert not {"Cast", "Sub", "Mul"} & {node.op_type for node in graph.node}


def test_it_is_much_smaller_and_knows_where_it_comes_from(model: Path, quantised: Path) -> None:
    card = loader.read_card(quantised)

    assert quantised.stat().st_size < model.stat().st_size / 2
    assert card.name == "cifar10-int8"
    assert card.labels == loader.read_card(model).labels
    assert f"int8 of {loader.digest(model)}" in card.source


def test_constants_that_an_old_file_lists_as_inputs_do_no_harm(
    model: Path, folders: dict[str, Path], tmp_path: Path
) -> None:
    old = onnx.load(model)
    for tensor in old.graph.initializer:
        old.graph.input.append(onnx.helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims))
    onnx.save(old, tmp_path / "old.onnx")
    choice = quantize(
        tmp_path / "old.onnx", tmp_path / "int8.onnx", read_pictures(folders["calibration"], loader.read_card(model))
    )
    assert choice.agreement >= AGREEMENT
    assert len(onnx.load(tmp_path / "int8.onnx").graph.input) == 1


def test_its_golden_sample_is_met_and_refuses_other_weights(quantised: Path, tmp_path: Path) -> None:
    golden.verify(loader.load(quantised))

    changed = onnx.load(quantised)
    weights = next(t for t in changed.graph.initializer if t.data_type == onnx.TensorProto.INT8 and len(t.dims) > 1)
    values = onnx.numpy_helper.to_array(weights)
    weights.CopyFrom(onnx.numpy_helper.from_array(np.flip(values, axis=0).copy(), weights.name))
    onnx.save_model(changed, tmp_path / "changed.onnx")

    assert main(["check", str(tmp_path / "changed.onnx")]) == 11


def test_the_command_measures_both_and_says_whether_to_use_it(
    model: Path, folders: dict[str, Path], tmp_path: Path, capsys: Capture
) -> None:
    target = tmp_path / "int8.onnx"
    arguments = ["--calibration", str(folders["calibration"]), "--evaluate", str(folders["evaluate"])]

    assert main(["quantize", str(model), *arguments, "--pictures", "40", "--output", str(target)]) == 0

    out = capsys.readouterr().out
    assert "top-1 agrees on" in out
    assert "of 100 pictures" in out
    assert "accuracy" in out
    assert "times as fast here" in out.splitlines()[-1]
    assert out.splitlines()[-1].startswith(("use it:", "do not use it:"))
    golden.verify(loader.load(target))


def test_only_a_float_onnx_file_can_be_quantised(
    quantised: Path,
    folders: dict[str, Path],
    tmp_path: Path,
    tmp_path_factory: pytest.TempPathFactory,
    capsys: Capture,
) -> None:
    pictures = read_pictures(folders["calibration"], loader.read_card(quantised), limit=10)
    with pytest.raises(UsageError, match="quantised already"):
        quantize(quantised, tmp_path / "again.onnx", pictures)
    script = prepare("cifar10-cnn", file_format="torchscript", model_dir=tmp_path_factory.mktemp("script"))
    with pytest.raises(UsageError, match="--format onnx"):
        quantize(script, tmp_path / "again.onnx", pictures)
    assert list(tmp_path.iterdir()) == []

    # nobody has looked for pictures yet
    arguments = ["--calibration", str(tmp_path / "gone"), "--output", str(tmp_path / "again.onnx")]
    for file, why in ((quantised, "quantised already"), (script, "--format onnx")):
        assert main(["quantize", str(file), *arguments]) == 2
        assert why in capsys.readouterr().err


def test_a_folder_without_pictures_is_said(model: Path, tmp_path: Path, capsys: Capture) -> None:
    (tmp_path / "empty").mkdir()
    output = ["--output", str(tmp_path / "int8.onnx")]

    assert main(["quantize", str(model), "--calibration", str(tmp_path / "empty"), *output]) == 3
    assert main(["quantize", str(model), "--calibration", str(tmp_path / "gone"), *output]) == 3
    (tmp_path / "empty" / "broken.png").write_bytes(b"no picture")
    assert main(["quantize", str(model), "--calibration", str(tmp_path / "empty"), *output]) == 3

    assert len(capsys.readouterr().err.splitlines()) == 3


def test_pictures_that_cannot_be_decoded_are_counted_aloud(
    model: Path, folders: dict[str, Path], tmp_path: Path, capsys: Capture
) -> None:
    shutil.copytree(folders["calibration"], tmp_path / "mixed")
    (tmp_path / "mixed" / "zero.png").write_bytes(b"")
    output = ["--output", str(tmp_path / "int8.onnx")]

    assert main(["quantize", str(model), "--calibration", str(tmp_path / "mixed"), "--pictures", "9", *output]) == 0

    assert f"{tmp_path / 'mixed'}: left out, for they cannot be decoded: 1" in capsys.readouterr().err


def test_an_output_that_cannot_be_written_is_said_before_anything_is_calibrated(
    model: Path, folders: dict[str, Path], tmp_path: Path
) -> None:
    pictures = read_pictures(folders["calibration"], loader.read_card(model), limit=2)
    broken = Pictures(pictures.images[:, :1], pictures.classes)

    with pytest.raises(UsageError, match="is a folder"):
        quantize(model, tmp_path, broken)


def test_pictures_take_their_class_from_the_nearest_folder_that_names_one(tmp_path: Path) -> None:
    card = load_noop("noop:12").card
    for place in ("noop-3/a", "11", "noop-2/noop-4", "elsewhere"):
        (tmp_path / place).mkdir(parents=True)
        Image.new("RGB", (2, 2)).save(tmp_path / place / "x.png")
    (tmp_path / "11" / "broken.jpg").write_bytes(b"")

    pictures = read_pictures(tmp_path, card)

    assert pictures.classes.tolist() == [11, -1, 4, 3]
    assert pictures.skipped == 1
    assert len(read_pictures(tmp_path, card, limit=2).images) <= 2


def test_no_folder_is_an_error_of_the_source(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="no folder"):
        read_pictures(tmp_path / "gone", load_noop("noop").card)


def test_an_outlier_does_not_widen_the_range_of_a_tensor() -> None:
    values = np.random.default_rng(0).normal(size=40_000).astype(np.float32)
    values[7] = 400
    histogram = Histogram()
    histogram.widen(values)
    histogram.fill(values)

    assert histogram.limits("minmax")[1] == 400
    assert histogram.limits("percentile")[1] < 20
    assert histogram.limits("mse")[1] <= 400


def test_a_tensor_of_one_value_has_a_range() -> None:
    histogram = Histogram()
    histogram.widen(np.zeros(5, np.float32))
    histogram.fill(np.zeros(5, np.float32))

    assert {histogram.limits(method) for method in ("minmax", "percentile", "mse")} == {(0.0, 0.0)}


def test_bench_times_every_setting_and_names_the_best(model: Path, capsys: Capture) -> None:
    settings = ["--batches", "1,4", "--threads", "1,2", "--seconds", "0.01"]

    assert main(["bench", str(model), *settings, "--json"]) == 0

    found = json.loads(capsys.readouterr().out)
    assert [(row["threads"], row["batch"]) for row in found["rows"]] == [(1, 1), (1, 4), (2, 1), (2, 4)]
    assert found["best"] == max(found["rows"], key=lambda row: row["images_per_s"] / row["threads"])
    assert found["fastest_answer"]["batch"] == 1
    assert all(0 < row["p50_ms"] <= row["p99_ms"] for row in found["rows"])

    assert main(["bench", str(model), *settings]) == 0
    out = capsys.readouterr().out
    assert "best for bulk work: batches of" in out
    assert "fastest answer" in out


@pytest.mark.slow
def test_int8_loses_at_most_half_a_point_over_the_ten_thousand(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(Path(__file__).parents[3] / "examples" / "cifar10"))
    cifar = importlib.import_module("data").load()
    calibration = Pictures(cifar.train_images[:400], cifar.train_labels[:400])

    quantize(model, tmp_path / "int8.onnx", calibration)

    accuracy = []
    for path in (model, tmp_path / "int8.onnx"):
        runtime = loader.load(path)
        tests = Pictures(cifar.test_images, cifar.test_labels)
        answers = np.concatenate([runtime.predict(batch).argmax(axis=1) for batch in tests.batches()])
        accuracy.append(100 * (answers == cifar.test_labels).mean())
    assert accuracy[0] - accuracy[1] <= 0.5


def test_a_plain_file_that_takes_normalised_pixels_is_quantised_too(tmp_path: Path) -> None:
    weights = np.random.default_rng(0).normal(size=(4, 3, 3, 3)).astype(np.float32)
    nodes = [
        onnx.helper.make_node("Conv", ["x", "w", "b"], ["c"], name="conv"),
        onnx.helper.make_node("Relu", ["c"], ["r"]),
        onnx.helper.make_node("GlobalAveragePool", ["r"], ["p"]),
        onnx.helper.make_node("Flatten", ["p"], ["logits"]),
    ]
    tensors = [onnx.numpy_helper.from_array(weights, "w"), onnx.numpy_helper.from_array(np.ones(4, np.float32), "b")]
    images = onnx.helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, ["n", 3, 8, 8])
    logits = onnx.helper.make_tensor_value_info("logits", onnx.TensorProto.FLOAT, ["n", 4])
    graph = onnx.helper.make_graph(nodes, "plain", [images], [logits], tensors)
    source, target = tmp_path / "plain.onnx", tmp_path / "int8.onnx"
    onnx.save_model(
        onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=8), source
    )
    (tmp_path / "labels.txt").write_text("a\nb\nc\nd\n")
    prep = {"resize": None, "crop": [8, 8], "mean": [0.5, 0.5, 0.5], "std": [0.25, 0.25, 0.25]}
    side_car = {"labels": "labels.txt", "preprocessing": prep, "output": "logits"}
    (tmp_path / "plain.onnx.json").write_text(json.dumps(side_car))
    pixels = np.random.default_rng(1).integers(0, 256, (16, 8, 8, 3)).astype(np.uint8)
    quantize(source, target, Pictures(pixels, np.full(16, -1)))
    before, after = (loader.load(str(path)).predict(pixels) for path in (source, target))
    assert np.abs(before - after).max() < 0.05


def test_scores_that_do_not_add_up_to_1_diverge_whether_they_rise_or_fall() -> None:
    expected = np.array([[0.7, 0.6, 0.1], [0.2, 0.9, 0.4]], np.float32)
    assert _divergence(expected, expected) == 0
    for shift in (-0.05, 0.05):
        assert _divergence(expected, expected + np.float32(shift)) > 0.01
    of_one = np.array([[0.7, 0.2, 0.1]], np.float32)
    found = np.array([[0.6, 0.3, 0.1]], np.float32)
    assert _divergence(of_one, found) == pytest.approx(0.7 * np.log(7 / 6) + 0.2 * np.log(2 / 3), abs=1e-4)


def test_a_near_tie_counts_for_neither() -> None:
    expected = np.array([[0.6, 0.3, 0.1], [0.4, 0.38, 0.22], [0.1, 0.1, 0.8], [0.5, 0.2, 0.3]], np.float32)
    found = np.array([[0.5, 0.4, 0.1], [0.38, 0.4, 0.22], [0.1, 0.1, 0.8], [0.3, 0.2, 0.5]], np.float32)
    assert agreement(expected, found) == (pytest.approx(2 / 3), pytest.approx(0.5))
    assert agreement(expected[1:2], found[1:2]) == (1.0, 0.0)
