"""What makes INT8 accurate and fast: equal channels, weights rounded together, biases corrected, a graph to match."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static

from worker.export.equalise import equalise
from worker.export.qdq import has_subgraphs, image_input, name_nodes, shield, widen_normalisation
from worker.export.refine import refine
from worker.export.rounding import Window, moments, round_together

CHANNELS, SIZE = 8, 12
Floats = NDArray[np.float32]


def network(seed: int = 0) -> onnx.ModelProto:
    """Images float32[N, 3, H, W]: a convolution with channels of very different size, Clip(0, 6), a depthwise one that
    takes large numbers from each other, Clip, and a 1 x 1."""
    chance = np.random.default_rng(seed)
    large = np.geomspace(0.02, 1, CHANNELS)
    differences = chance.normal(size=(CHANNELS, 1, 3, 3)) * 8
    differences[:, :, 1, 1] -= differences.sum(axis=(1, 2, 3), keepdims=False)[:, np.newaxis] - 0.3
    tensors = {
        "w1": chance.normal(size=(CHANNELS, 3, 3, 3)) * large[:, None, None, None],
        "b1": chance.uniform(0.5, 1, CHANNELS) * large,
        "w2": differences / large[:, None, None, None],
        "b2": chance.normal(size=CHANNELS),
        "w3": chance.normal(size=(5, CHANNELS, 1, 1)),
        "b3": chance.normal(size=5),
    }
    nodes = [
        helper.make_node("Conv", ["images", "w1", "b1"], ["c1"], name="first", pads=[1, 1, 1, 1]),
        helper.make_node("Clip", ["c1", "zero", "six"], ["a1"], name="clip1"),
        helper.make_node("Conv", ["a1", "w2", "b2"], ["c2"], name="depthwise", group=CHANNELS, strides=[2, 2]),
        helper.make_node("Clip", ["c2", "zero", "six"], ["a2"], name="clip2"),
        helper.make_node("Conv", ["a2", "w3", "b3"], ["scores"], name="last"),
    ]
    constants = [numpy_helper.from_array(values.astype(np.float32), name) for name, values in tensors.items()]
    constants += [numpy_helper.from_array(np.float32(n), name) for name, n in (("zero", 0), ("six", 6))]  # type: ignore[arg-type]
    graph = helper.make_graph(
        nodes,
        "net",
        [helper.make_tensor_value_info("images", TensorProto.FLOAT, ["n", 3, SIZE, SIZE])],
        [helper.make_tensor_value_info("scores", TensorProto.FLOAT, None)],
        constants,
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def pictures(count: int, seed: int = 1) -> list[Floats]:
    """Smooth ones, as photographs are: neighbouring pixels are nearly equal."""
    coarse = np.random.default_rng(seed).normal(size=(count, 3, 3, 3))
    smooth = coarse.repeat(SIZE // 3, axis=2).repeat(SIZE // 3, axis=3).astype(np.float32)
    return list(smooth[:, np.newaxis])


def scores(model: onnx.ModelProto, images: list[Floats], *, optimised: bool = True) -> Floats:
    options = ort.SessionOptions()
    options.log_severity_level = 3
    if not optimised:
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return np.concatenate([session.run(None, {session.get_inputs()[0].name: batch})[0] for batch in images])


def quantised(model: onnx.ModelProto, images: list[Floats], *, kept: tuple[str, ...] = ()) -> onnx.ModelProto:
    """Its QDQ form, by ONNX Runtime's own tools alone; of 7 bits, whose sums are right on every processor."""

    class Reader(CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            self.images = iter(images)

        def get_next(self) -> dict[str, Floats] | None:
            batch = next(self.images, None)
            return None if batch is None else {"images": batch}

    with tempfile.TemporaryDirectory() as name:
        source, target = Path(name) / "float.onnx", Path(name) / "int8.onnx"
        onnx.save_model(model, source)
        quantize_static(
            str(source),
            str(target),
            Reader(),
            quant_format=QuantFormat.QDQ,
            per_channel=True,
            reduce_range=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            nodes_to_exclude=list(kept),
        )
        return onnx.load_model(target)


def error(found: Floats, wanted: Floats) -> float:
    return float(np.sqrt(((found - wanted) ** 2).mean()))


def largest_between(model: onnx.ModelProto, images: list[Floats]) -> Floats:
    viewed = onnx.ModelProto()
    viewed.CopyFrom(model)
    viewed.graph.output.append(onnx.ValueInfoProto(name="a1"))
    session = ort.InferenceSession(viewed.SerializeToString(), providers=["CPUExecutionProvider"])
    found = [session.run(["a1"], {"images": batch})[0].max(axis=(0, 2, 3)) for batch in images]
    return np.asarray(np.max(found, axis=0))


def test_channels_become_more_alike_and_no_score_changes() -> None:
    model, images = network(), pictures(8)
    wanted, before = scores(model, images), largest_between(model, images)
    equalise(model, images)
    assert np.allclose(scores(model, images), wanted, rtol=1e-3, atol=1e-3)
    after = largest_between(model, images)
    assert before.min() < before.max() / 20
    assert np.allclose(after, np.minimum(8 * before, before.max()), rtol=1e-3)


@pytest.mark.parametrize("change", ["bound", "other reader", "no depthwise"])
def test_channels_are_left_alone_where_scaling_would_change_a_score(change: str) -> None:
    model = network()
    if change == "bound":
        model.graph.node[1].input[1] = "six"
    elif change == "other reader":
        model.graph.output.append(helper.make_tensor_value_info("a1", TensorProto.FLOAT, None))
    else:
        dense = np.ones((CHANNELS, CHANNELS, 3, 3), np.float32)
        model.graph.initializer[2].CopyFrom(numpy_helper.from_array(dense, "w2"))
        model.graph.node[2].attribute[0].i = 1
        assert model.graph.node[2].attribute[0].name == "group"
    before = model.SerializeToString()
    equalise(model, pictures(2))
    assert model.SerializeToString() == before


def test_weights_rounded_together_change_the_output_less_than_each_to_its_nearest() -> None:
    chance = np.random.default_rng(3)
    inputs = chance.normal(size=(2, 500, 1)) + 0.05 * chance.normal(size=(2, 500, 9))  # nearly equal, as neighbours are
    weights = chance.normal(size=(2, 4, 9))
    step = np.abs(weights).max(axis=2) / 7
    together = round_together(weights, moments([inputs]), step, 7) * step[..., np.newaxis]
    nearest = np.rint(weights / step[..., np.newaxis]) * step[..., np.newaxis]

    def change(rounded: NDArray[np.float64]) -> float:
        return float((((rounded - weights) @ inputs.transpose(0, 2, 1)) ** 2).mean())

    assert change(together) < change(nearest) / 4
    assert np.abs(np.rint(together / step[..., np.newaxis])).max() <= 7


def test_moments_of_blocks_add_up_and_of_no_input_do_no_harm() -> None:
    block = np.random.default_rng(4).normal(size=(1, 6, 3))
    assert np.allclose(moments([block[:, :2], block[:, 2:]]), moments([block]))
    weights = np.array([[[1.0, -2.0, 3.0]]])
    assert round_together(weights, np.zeros((1, 3, 3)), np.array([[1.0]]), 127).tolist() == [[[1, -2, 3]]]


@pytest.mark.parametrize(
    "window",
    [
        Window(kernel=(3, 3), pads=(1, 1, 1, 1)),
        Window(kernel=(3, 2), strides=(2, 1), pads=(0, 1, 2, 0)),
        Window(kernel=(3, 3), dilations=(2, 2), groups=4),
        Window(),
    ],
)
def test_a_window_reads_what_a_convolution_reads(window: Window) -> None:
    chance = np.random.default_rng(5)
    images = chance.normal(size=(2, 4, 9, 8)).astype(np.float32)
    weights = chance.normal(size=(8, 4 // window.groups, *window.kernel)).astype(np.float32)
    node = helper.make_node(
        "Conv",
        ["x", "w"],
        ["y"],
        strides=window.strides,
        dilations=window.dilations,
        pads=window.pads,
        group=window.groups,
    )
    graph = helper.make_graph(
        [node],
        "conv",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, images.shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(weights, "w")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    wanted = scores(model, [images])  # N, O, H, W
    rows = window.read(images)  # G, P, K
    found = rows @ weights.reshape(window.groups, 8 // window.groups, -1).transpose(0, 2, 1)  # G, P, O / G
    n, outputs, height, width = wanted.shape
    found = found.reshape(window.groups, n, height, width, -1).transpose(1, 0, 4, 2, 3)
    assert np.allclose(found.reshape(n, outputs, height, width), wanted, atol=1e-4)


def test_a_refined_model_is_nearer_to_the_float_one() -> None:
    model, seen, others = network(), pictures(32), pictures(32, seed=9)
    equalise(model, seen)
    wanted = scores(model, others)
    plain = quantised(model, seen)
    before = error(scores(plain, others), wanted)
    refine(plain, model, seen, bits=7)
    assert error(scores(plain, others), wanted) < 0.9 * before  # most of it is of the activations


def test_it_has_the_means_of_the_float_one() -> None:
    model, seen = network(), pictures(32)
    wanted = scores(model, seen).mean(axis=(0, 2, 3))
    plain = quantised(model, seen)
    before = np.abs(scores(plain, seen, optimised=False).mean(axis=(0, 2, 3)) - wanted)
    refine(plain, model, seen, bits=7)
    after = np.abs(scores(plain, seen, optimised=False).mean(axis=(0, 2, 3)) - wanted)
    assert after.max() < before.max() / 10


def test_a_bias_alone_is_corrected_where_weights_stay_in_float32() -> None:
    model, seen = network(), pictures(32)
    mixed = quantised(model, seen, kept=("last",))
    weights = numpy_helper.to_array(next(t for t in mixed.graph.initializer if t.name == "w3"))
    refine(mixed, model, seen, bits=7)
    found, wanted = (scores(m, seen, optimised=False).mean(axis=(0, 2, 3)) for m in (mixed, model))
    assert np.allclose(found, wanted, atol=1e-4)
    after = numpy_helper.to_array(next(t for t in mixed.graph.initializer if t.name == "w3"))
    assert np.array_equal(after, weights)


def test_a_layer_that_is_shielded_stays_in_float32() -> None:
    model, images = network(), pictures(16)
    bare, shielded = (quantised(model, images, kept=("depthwise",)) for _ in range(2))
    shield(shielded, ["depthwise"])
    assert np.array_equal(scores(shielded, images, optimised=False), scores(bare, images, optimised=False))
    wanted = scores(bare, images, optimised=False)
    # what the shield is there for: without it, ONNX Runtime rounds these weights by itself
    assert error(scores(bare, images), wanted) > 4 * error(scores(shielded, images), wanted)


def test_a_wide_normalisation_gives_the_same_pixels() -> None:
    def constant(name: str, values: list[float]) -> TensorProto:
        return numpy_helper.from_array(np.array(values, np.float32).reshape(1, 3, 1, 1), name)

    nodes = [
        helper.make_node("Shape", ["images"], ["shape"]),
        helper.make_node("Transpose", ["images"], ["planes"], perm=[0, 3, 1, 2]),
        helper.make_node("Cast", ["planes"], ["floats"], to=TensorProto.FLOAT),
        helper.make_node("Sub", ["floats", "mean"], ["centred"]),
        helper.make_node("Mul", ["centred", "scale"], ["pixels"]),
        helper.make_node("Mul", ["pixels", "other"], ["later"]),
    ]
    tensors = [constant("mean", [1, 2, 3]), constant("scale", [0.1, 0.2, 0.3])]
    other = numpy_helper.from_array(np.array([2.0], np.float32), "other")
    graph = helper.make_graph(
        nodes,
        "normalise",
        [helper.make_tensor_value_info("images", TensorProto.UINT8, ["n", 4, 5, 3])],
        [helper.make_tensor_value_info("later", TensorProto.FLOAT, ["n", 3, 4, 5])],
        [*tensors, other],
        value_info=[helper.make_tensor_value_info("mean", TensorProto.FLOAT, [1, 3, 1, 1])],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    images = np.random.default_rng(6).integers(0, 256, (2, 4, 5, 3)).astype(np.uint8)
    before = scores(model, [images])  # type: ignore[list-item]
    widen_normalisation(model, 5)
    assert {t.name: tuple(t.dims) for t in model.graph.initializer} == {
        "mean": (1, 3, 1, 5),
        "scale": (1, 3, 1, 5),
        "other": (1,),
    }
    onnx.checker.check_model(model, full_check=True)
    assert np.array_equal(scores(model, [images]), before)  # type: ignore[list-item]


def test_nodes_without_a_name_of_their_own_get_one() -> None:
    model = network()
    for node, name in zip(model.graph.node, ("", "twice", "twice", "", "last"), strict=True):
        node.name = name
    name_nodes(model)
    names = [node.name for node in model.graph.node]
    assert len(set(names)) == 5
    assert names[1::3] == ["twice", "last"]


@pytest.mark.parametrize("change", ["padding by name", "shared bias"])
def test_what_cannot_be_refined_is_left_as_it_is(change: str) -> None:
    model, seen = network(), pictures(8)
    if change == "padding by name":
        first = model.graph.node[0]
        del first.attribute[:]
        first.attribute.append(helper.make_attribute("auto_pad", "SAME_UPPER"))
    else:
        model.graph.node[2].input[2] = "b1"
    plain = quantised(model, seen, kept=("first", "depthwise") if change == "shared bias" else ())
    before = {tensor.name: numpy_helper.to_array(tensor) for tensor in plain.graph.initializer}
    refine(plain, model, seen, bits=7)
    after = {tensor.name: numpy_helper.to_array(tensor) for tensor in plain.graph.initializer}
    changed = {name for name in before if not np.array_equal(before[name], after[name])}
    left = {"padding by name": "w1_quantized", "shared bias": "b1"}[change]
    assert left in before
    assert left not in changed
    assert "w3_quantized" in changed


def test_a_constant_that_is_used_elsewhere_is_not_widened() -> None:
    model = network()
    model.graph.node.insert(0, helper.make_node("Mul", ["images", "scale"], ["pixels"]))
    model.graph.node[1].input[0] = "pixels"
    model.graph.node.append(helper.make_node("Mul", ["images", "scale"], ["again"]))
    model.graph.initializer.append(numpy_helper.from_array(np.ones((1, 3, 1, 1), np.float32), "scale"))
    widen_normalisation(model, SIZE)
    assert next(tuple(t.dims) for t in model.graph.initializer if t.name == "scale") == (1, 3, 1, 1)
    del model.graph.node[-1]
    widen_normalisation(model, SIZE)
    assert next(tuple(t.dims) for t in model.graph.initializer if t.name == "scale") == (1, 3, 1, SIZE)


def test_the_images_are_the_input_that_is_no_constant() -> None:
    model = network()
    assert image_input(model) == "images"
    model.graph.input.insert(0, helper.make_tensor_value_info("w1", TensorProto.FLOAT, [CHANNELS, 3, 3, 3]))
    assert image_input(model) == "images"


def test_a_branch_is_seen() -> None:
    model = network()
    assert not has_subgraphs(model)
    value = helper.make_tensor_value_info("y", TensorProto.FLOAT, None)
    branch = helper.make_graph([helper.make_node("Identity", ["a1"], ["y"])], "branch", [], [value])
    model.graph.node.append(helper.make_node("If", ["c"], ["z"], then_branch=branch, else_branch=branch))
    assert has_subgraphs(model)
