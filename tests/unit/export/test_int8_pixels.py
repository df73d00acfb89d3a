"""How an INT8 graph begins: with the bytes of a picture as its first quantised tensor, four pixels at a time."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from jobs.errors import ExportError
from worker.export.blocks import take_blocks
from worker.export.classifier import as_classifier
from worker.export.frame import FRAMED, add_frame
from worker.export.onnx import to_onnx
from worker.export.pictures import read_pictures
from worker.export.pixels import NORMALISED, PixelRange, even_out, take_pixels
from worker.export.prepare import prepare
from worker.export.quantize import quantize
from worker.models import loader
from worker.models.card import ModelCard, Preprocessing

HEIGHT, WIDTH, OUTPUTS = 10, 16, 5
Step = tuple[str, Any]
#: torchvision's usual mean and deviation, in bytes.
MEAN, DEVIATION = np.array([123.675, 116.28, 103.53]), np.array([58.395, 57.12, 57.375])


def pictures(count: int = 3) -> NDArray[np.uint8]:
    return np.random.default_rng(3).integers(0, 256, (count, HEIGHT, WIDTH, 3), np.uint8)


def by_channel(values: Any) -> NDArray[np.float32]:
    return np.asarray(values, np.float32).reshape(1, 3, 1, 1)


def float_model(steps: Sequence[Step], *, bias: bool = True, pads: int = 1, kind: int = TensorProto.UINT8) -> Any:
    """Bytes, a transposition, steps of arithmetic, a convolution of 3 x 3."""
    chance = np.random.default_rng(0)
    weights = chance.normal(size=(OUTPUTS, 3, 3, 3)).astype(np.float32)
    tensors = {"w": weights, "b": chance.normal(size=OUTPUTS).astype(np.float32)}
    nodes, value = [], "images"
    for place, (op, given) in enumerate(steps):
        inputs, settings = [value], {}
        if op in ("Transpose", "Cast"):
            settings = {"perm": given} if op == "Transpose" else {"to": given}
        else:
            tensors[f"c{place}"] = np.asarray(given, np.float32)
            inputs.append(f"c{place}")
        value = f"v{place}"
        nodes.append(helper.make_node(op, inputs, [value], f"n{place}", **settings))
    inputs = [value, "w", "b"] if bias else [value, "w"]
    nodes.append(helper.make_node("Conv", inputs, ["scores"], "first", pads=[pads] * 4))
    constants = [numpy_helper.from_array(t, n) for n, t in tensors.items() if bias or n != "b"]
    graph = helper.make_graph(
        nodes,
        "net",
        [helper.make_tensor_value_info("images", kind, ["n", HEIGHT, WIDTH, 3])],
        [helper.make_tensor_value_info("scores", TensorProto.FLOAT, ["n", OUTPUTS, "h", "w"])],
        constants,
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


TO_PLANES: Step = ("Transpose", [0, 3, 1, 2])
TO_FLOAT: Step = ("Cast", TensorProto.FLOAT)
ALIKE: list[Step] = [TO_PLANES, TO_FLOAT, ("Sub", by_channel([127] * 3)), ("Mul", by_channel([1 / 128] * 3))]
UNLIKE: list[Step] = [TO_FLOAT, TO_PLANES, ("Sub", by_channel(MEAN)), ("Div", by_channel(DEVIATION))]
TWICE: list[Step] = [
    *(TO_PLANES, TO_FLOAT, ("Div", 255), ("Add", by_channel(-MEAN / 255)), ("Mul", by_channel(255 / DEVIATION)))
]


def run(model: onnx.ModelProto, images: NDArray[Any]) -> NDArray[Any]:
    onnx.checker.check_model(model)
    options = ort.SessionOptions()
    options.log_severity_level = 3
    session = ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return np.asarray(session.run(None, {"images": images})[0])


def kinds(model: onnx.ModelProto) -> list[str]:
    return [node.op_type for node in model.graph.node]


def names_in(model: onnx.ModelProto) -> set[str]:
    return {name for node in model.graph.node for name in (*node.input, *node.output)}


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


def int8_model(
    *,
    size: tuple[int, int] = (3, 3),
    strides: tuple[int, int] = (2, 2),
    pads: Sequence[int] = (0, 0, 1, 1),
    **given: Any,
) -> onnx.ModelProto:
    """What :func:`take_pixels` leaves: bytes, transposed and dequantised, a convolution, its result quantised."""
    chance = np.random.default_rng(1)
    tensors: dict[str, Any] = {
        "scale": np.float32(1 / 128),
        "zero": np.uint8(127),
        "w": chance.integers(-127, 128, (OUTPUTS, 3, *size)).astype(np.int8),
        "ws": chance.uniform(0.001, 0.01, OUTPUTS).astype(np.float32),
        "wz": np.zeros(OUTPUTS, np.int8),
        "b": chance.integers(-2000, 2000, OUTPUTS).astype(np.int32),
        "bz": np.zeros(OUTPUTS, np.int32),
        "out_scale": np.float32(0.05),
        "out_zero": np.uint8(100),
    }
    tensors["bs"] = tensors["ws"] * tensors["scale"]
    middle, turned = given.pop("middle", None), given.pop("turned", [0, 3, 1, 2])
    tensors |= given.pop("tensors", {})
    settings = {"kernel_shape": size, "strides": strides, "pads": pads, **given}
    nodes = [
        helper.make_node("Transpose", ["images"], ["planes"], perm=turned),
        helper.make_node("DequantizeLinear", ["planes", "scale", "zero"], ["x"]),
        helper.make_node("DequantizeLinear", ["w", "ws", "wz"], ["kernel"], axis=0),
        helper.make_node("DequantizeLinear", ["b", "bs", "bz"], ["bias"], axis=0),
        helper.make_node("Conv", ["x", "kernel", "bias"], ["c"], **settings),
        *([helper.make_node(middle, ["c"], ["m"])] if middle else []),
        helper.make_node("QuantizeLinear", ["m" if middle else "c", "out_scale", "out_zero"], ["q"]),
        helper.make_node("DequantizeLinear", ["q", "out_scale", "out_zero"], ["scores"]),
    ]
    graph = helper.make_graph(
        nodes,
        "net",
        [helper.make_tensor_value_info("images", TensorProto.UINT8, ["n", HEIGHT, WIDTH, 3])],
        [helper.make_tensor_value_info("scores", TensorProto.FLOAT, ["n", OUTPUTS, "h", "w"])],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in tensors.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


@pytest.mark.parametrize(
    ("size", "strides", "pads"),
    [
        ((3, 3), (2, 2), (0, 0, 1, 1)),
        ((3, 3), (2, 2), (1, 1, 1, 1)),
        ((3, 3), (1, 2), (1, 1, 0, 0)),
        ((7, 7), (2, 2), (3, 3, 3, 3)),
        ((5, 6), (2, 2), (2, 2, 2, 2)),
        ((2, 2), (2, 2), (0, 0, 0, 0)),
        ((4, 4), (4, 4), (0, 0, 0, 0)),
        ((7, 7), (4, 4), (3, 3, 3, 3)),
        ((3, 11), (3, 4), (0, 7, 0, 0)),
    ],
)
@pytest.mark.parametrize("middle", [None, "Relu"])
def test_blocks_of_pixels_give_the_very_same_scores(
    size: tuple[int, int], strides: tuple[int, int], pads: tuple[int, ...], middle: str | None
) -> None:
    model = int8_model(size=size, strides=strides, pads=pads, middle=middle)
    wanted = run(model, pictures())
    assert take_blocks(model, WIDTH)
    assert np.array_equal(run(model, pictures()), wanted)
    assert len(np.unique(wanted)) > 20


def framed(model: onnx.ModelProto) -> onnx.ModelProto:
    """The same, a frame of three colours in place of what the layer pads with."""
    layer = next(node for node in model.graph.node if node.op_type == "Conv")
    transpose = next(node for node in model.graph.node if node.op_type == "Transpose")
    for node in reversed(add_frame(model, layer, np.array([200, 3, 90], np.uint8))):
        model.graph.node.insert(0, node)
    transpose.input[0] = FRAMED
    return model


@pytest.mark.parametrize(
    ("size", "strides", "pads"),
    [
        ((3, 3), (2, 2), (0, 0, 1, 1)),
        ((3, 3), (2, 2), (1, 1, 1, 1)),
        ((3, 3), (1, 2), (0, 1, 0, 1)),
        ((7, 7), (2, 2), (3, 3, 3, 3)),
        ((5, 6), (2, 2), (2, 2, 2, 2)),
        ((3, 9), (2, 2), (1, 3, 1, 5)),
        ((3, 3), (2, 2), (1, 5, 1, 5)),
    ],
)
def test_blocks_of_a_framed_picture_give_the_very_same_scores(
    size: tuple[int, int], strides: tuple[int, int], pads: tuple[int, ...]
) -> None:
    settings: dict[str, Any] = {"size": size, "strides": strides, "pads": pads}
    model = framed(int8_model(**settings))
    wanted = run(model, pictures())
    assert not np.array_equal(wanted, run(int8_model(**settings), pictures()))
    assert take_blocks(model, WIDTH)
    assert np.array_equal(run(model, pictures()), wanted)
    assert len(np.unique(wanted)) > 20


@pytest.mark.parametrize(
    "model",
    [
        framed(int8_model(size=(3, 4), pads=(1, 2, 1, 0))),
        framed(int8_model(size=(7, 7), strides=(4, 4), pads=(3, 3, 3, 3))),
        int8_model(strides=(1, 1)),
        int8_model(pads=(0, 0, 0, 0)),
        int8_model(dilations=(2, 2), pads=(0, 0, 4, 4)),
        int8_model(pads=(0, 0, 0, 0), auto_pad="SAME_UPPER"),
        int8_model(middle="Sigmoid"),
        int8_model(turned=[0, 3, 2, 1]),
        int8_model(tensors={"wz": np.ones(OUTPUTS, np.int8)}),
        int8_model(tensors={"ws": np.float32(0.01), "wz": np.int8(0)}),
        float_model(ALIKE),
    ],
    ids=[
        "a frame that cannot be widened",
        "a frame with a block too many",
        "every pixel",
        "an odd number",
        "dilated",
        "pads by themselves",
        "another function",
        "turned",
        "a zero point",
        "one step",
        "floats",
    ],
)
def test_layers_whose_results_do_not_fit_blocks_are_left_alone(model: onnx.ModelProto) -> None:
    before = model.SerializeToString()
    assert not take_blocks(model, WIDTH)
    assert model.SerializeToString() == before


def test_a_result_that_others_need_too_is_left_alone() -> None:
    model = int8_model()
    model.graph.output.append(helper.make_tensor_value_info("c", TensorProto.FLOAT, ["n", OUTPUTS, "h", "w"]))
    assert not take_blocks(model, WIDTH)
    bare = int8_model()
    del bare.graph.node[-2:]
    bare.graph.output[0].name = "c"
    assert not take_blocks(bare, WIDTH)


def test_names_that_are_taken_are_left_alone() -> None:
    blocks, pixels = int8_model(), float_model(ALIKE)
    blocks.graph.node[-1].name = "labelmill_blocks_of_mine"
    pixels.graph.node[-1].name = "labelmill_pixels_of_mine"
    assert not take_blocks(blocks, WIDTH)
    assert even_out(pixels) is None


def test_a_width_that_blocks_do_not_divide_is_left_alone() -> None:
    assert not take_blocks(int8_model(), WIDTH + 2)


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
