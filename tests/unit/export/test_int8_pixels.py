"""The bytes of a picture as the first quantised tensor of an INT8 graph."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

from jobs.errors import ExportError
from tests.unit.export.graphs import (
    ALIKE,
    DEVIATION,
    HEIGHT,
    MEAN,
    OUTPUTS,
    TO_FLOAT,
    TO_PLANES,
    TWICE,
    UNLIKE,
    WIDTH,
    Step,
    by_channel,
    float_model,
    kinds,
    names_in,
    pictures,
    run,
)
from worker.export.classifier import as_classifier
from worker.export.frame import FRAMED
from worker.export.onnx import to_onnx
from worker.export.pictures import read_pictures
from worker.export.pixels import NORMALISED, PixelRange, even_out, take_pixels
from worker.export.prepare import prepare
from worker.export.quantize import quantize
from worker.models import loader
from worker.models.card import ModelCard, Preprocessing


@pytest.mark.parametrize("bias", [True, False])
def test_channels_that_are_alike_are_normalised_to_the_same_scores(bias: bool) -> None:
    model = float_model(ALIKE, bias=bias)
    wanted = run(model, pictures())
    assert even_out(model) == PixelRange(-127 / 128, 1.0)
    assert np.allclose(run(model, pictures()), wanted, rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("steps", [UNLIKE, TWICE], ids=["unlike", "twice"])
@pytest.mark.parametrize("bias", [True, False])
def test_the_first_layer_makes_up_for_channels_that_differ(steps: list[Step], bias: bool) -> None:
    model, without_pads = float_model(steps, bias=bias), float_model(steps, bias=bias, pads=0)
    wanted, wanted_within = run(model, pictures()), run(without_pads, pictures())
    found = even_out(model)
    assert found
    assert even_out(without_pads) == found
    assert -found.lowest / (found.highest - found.lowest) * 255 == pytest.approx(114)  # the mean of the means
    assert FRAMED not in names_in(without_pads)
    assert np.allclose(run(without_pads, pictures()), wanted_within, rtol=1e-4, atol=1e-4)
    scores = run(model, pictures())
    assert np.allclose(scores[..., 1:-1, 1:-1], wanted[..., 1:-1, 1:-1], rtol=1e-4, atol=1e-4)
    kernel = np.abs(np.random.default_rng(0).normal(size=(OUTPUTS, 3, 3, 3))).sum(axis=(2, 3))
    off = np.abs(np.rint(MEAN) - MEAN) / DEVIATION  # a frame of whole numbers is off by as much
    assert np.all(np.abs(scores - wanted).max(axis=(0, 2, 3)) <= kernel @ off + 1e-4)


@pytest.mark.parametrize("pads", [(1, 1, 1, 1), (0, 0, 1, 1), (1, 2, 0, 3), (3, 0, 2, 1)])
def test_a_frame_of_whole_means_is_exact(pads: Sequence[int]) -> None:
    steps = [TO_PLANES, TO_FLOAT, ("Sub", by_channel(np.rint(MEAN))), ("Div", by_channel(DEVIATION))]
    model = float_model(steps)
    next(attribute for attribute in model.graph.node[-1].attribute if attribute.name == "pads").ints[:] = pads
    wanted = run(model, pictures())
    assert even_out(model)
    assert FRAMED in names_in(model)
    assert np.allclose(run(model, pictures()), wanted, rtol=1e-4, atol=1e-4)


def test_a_frame_has_the_bytes_next_to_the_means() -> None:
    model = float_model(UNLIKE)
    assert even_out(model)
    strips = [numpy_helper.to_array(t) for t in model.graph.initializer if t.data_type == TensorProto.UINT8]
    assert len(strips) == 4
    assert all(np.array_equal(np.unique(strip.reshape(-1, 3), axis=0), [[124, 116, 104]]) for strip in strips)


def of_any_size(model: onnx.ModelProto) -> None:
    model.graph.input[0].type.tensor_type.shape.dim[1].dim_param = "height"


def of_an_old_opset(model: onnx.ModelProto) -> None:
    model.opset_import[0].version = 13


def padded_by_itself(model: onnx.ModelProto) -> None:
    del model.graph.node[-1].attribute[:]
    model.graph.node[-1].attribute.append(helper.make_attribute("auto_pad", "SAME_UPPER"))


@pytest.mark.parametrize("changed", [of_any_size, of_an_old_opset, padded_by_itself])
def test_without_a_frame_what_is_padded_has_one_colour(changed: Callable[[onnx.ModelProto], None]) -> None:
    model = float_model(UNLIKE)
    changed(model)
    wanted = run(model, pictures())
    assert even_out(model)
    assert FRAMED not in names_in(model)
    scores = run(model, pictures())
    assert np.allclose(scores[..., 1:-1, 1:-1], wanted[..., 1:-1, 1:-1], rtol=1e-4, atol=1e-4)
    assert not np.allclose(scores, wanted, atol=0.05)


@pytest.mark.parametrize("order", ["RGB", "BGR"])
def test_a_model_of_ours_is_taken_only_where_its_channels_keep_their_order(order: str, tmp_path: Path) -> None:
    prep = Preprocessing(resize=None, crop=(HEIGHT, WIDTH), color_order=order)
    network = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3, 2, 1), torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten())
    module = as_classifier(network, ModelCard(name="net", labels=("a", "b", "c", "d"), preprocessing=prep))
    to_onnx(module, (torch.from_numpy(pictures(2)),), tmp_path / "net.onnx", input_names=["images"])
    model = onnx.load(tmp_path / "net.onnx")
    wanted = run(model, pictures())
    assert bool(even_out(model)) == (order == "RGB")
    assert np.allclose(run(model, pictures()), wanted, atol=1e-3)


@pytest.mark.parametrize(
    "steps",
    [
        [TO_PLANES, TO_FLOAT],
        [TO_PLANES, TO_FLOAT, ("Sub", by_channel(MEAN))],
    ],
    ids=["nothing but the bytes", "no scale"],
)
def test_a_step_that_is_not_there_changes_nothing(steps: list[Step]) -> None:
    model = float_model(steps, pads=0)
    wanted = run(model, pictures())
    assert even_out(model)
    assert np.allclose(run(model, pictures()), wanted, rtol=1e-4, atol=1e-2)


@pytest.mark.parametrize(
    "model",
    [
        float_model([("Sub", 3.0)], kind=TensorProto.FLOAT),
        float_model([("Transpose", [0, 3, 2, 1]), TO_FLOAT, ("Mul", 2.0)]),
        float_model([TO_FLOAT, ("Sub", np.asarray(MEAN)), TO_PLANES]),
        float_model([TO_PLANES, TO_FLOAT, ("Mul", np.ones((1, 3, 1, WIDTH)))]),
        float_model([TO_PLANES, TO_FLOAT, ("Pow", 2.0)]),
        float_model([TO_PLANES, TO_FLOAT, ("Mul", by_channel([1, 0, 1]))]),
        float_model([TO_PLANES, TO_FLOAT, ("Mul", -1.0), ("Add", 255.0)]),
    ],
    ids=[
        "floats",
        "turned",
        "before it is turned",
        "a number for each column",
        "no line",
        "a channel that is not used",
        "a negative",
    ],
)
def test_what_begins_otherwise_is_left_alone(model: onnx.ModelProto) -> None:
    before = model.SerializeToString()
    assert even_out(model) is None
    assert model.SerializeToString() == before


def test_a_picture_that_is_used_twice_is_left_alone() -> None:
    model = float_model(ALIKE)
    model.graph.output.append(helper.make_tensor_value_info("v1", TensorProto.FLOAT, None))
    assert even_out(model) is None


def test_names_that_are_taken_are_left_alone() -> None:
    model = float_model(ALIKE)
    model.graph.node[-1].name = "labelmill_pixels_of_mine"
    assert even_out(model) is None


@pytest.fixture(scope="module")
def lite0_int8(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """EfficientNet-Lite0, quantised on the photographs that the project brings."""
    target = tmp_path_factory.mktemp("int8") / "lite0.onnx"
    source = prepare("efficientnet-lite0")
    quantize(source, target, read_pictures(Path(__file__).parents[3] / "examples" / "photos", loader.read_card(source)))
    return target


def test_the_default_model_begins_with_bytes_and_nothing_is_computed_before_its_first_layer(lite0_int8: Path) -> None:
    model = onnx.load(lite0_int8)
    assert NORMALISED not in names_in(model)
    made = {node.output[0]: node for node in model.graph.node}
    first = next(
        node for node in model.graph.node if node.op_type == "Conv" and "blocks" in made[node.input[0]].input[0]
    )
    steps, value = [], first.input[0]
    while value in made:
        steps.append(made[value].op_type)
        value = made[value].input[0]
    assert (steps, value) == (["DequantizeLinear", "Transpose", "Reshape"], "images")
    assert not {"Cast", "Sub"} & set(kinds(model))


def prepared(*, zero: int = 127, op: str = "QuantizeLinear") -> onnx.ModelProto:
    """A graph that :func:`even_out` has changed, with a quantisation of what it normalises."""
    model = float_model(ALIKE)
    assert even_out(model)
    values = {"step": np.float32(1 / 128), "zero": np.uint8(zero)}
    model.graph.initializer.extend(numpy_helper.from_array(np.asarray(value), name) for name, value in values.items())
    layer = model.graph.node[-1]
    layer.input[0] = "x"
    if op == "QuantizeLinear":
        quantise = helper.make_node("QuantizeLinear", [NORMALISED, "step", "zero"], ["q"])
        dequantise = helper.make_node("DequantizeLinear", ["q", "step", "zero"], ["x"])
    else:
        quantise = helper.make_node(op, [NORMALISED], ["q"])
        dequantise = helper.make_node("Identity", ["q"], ["x"])
    model.graph.node.insert(len(model.graph.node) - 1, quantise)
    model.graph.node.insert(len(model.graph.node) - 1, dequantise)
    return model


def test_bytes_take_the_place_of_what_they_would_be_quantised_to() -> None:
    model = prepared()
    wanted = run(model, pictures())
    take_pixels(model)
    assert np.array_equal(run(model, pictures()), wanted)
    assert kinds(model) == ["Transpose", "DequantizeLinear", "Conv"]


def test_bytes_that_are_not_their_own_steps_are_an_error() -> None:
    with pytest.raises(ExportError, match="zero point 128 for 127"):
        take_pixels(prepared(zero=128))


def test_a_first_layer_that_stays_in_floats_keeps_its_normalisation() -> None:
    model = prepared(op="Identity")
    before = model.SerializeToString()
    take_pixels(model)
    assert model.SerializeToString() == before
