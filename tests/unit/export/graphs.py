"""Small graphs that begin with the bytes of a picture, in floats and in INT8, and what they say of pictures."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

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
    return model_of(nodes, constants, kind)


def model_of(
    nodes: Sequence[onnx.NodeProto], constants: Sequence[onnx.TensorProto], kind: int = TensorProto.UINT8
) -> onnx.ModelProto:
    """From ``images`` to the ``scores`` of a convolution."""
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
        # of 7 bits: where there is no VNNI, sums of larger products depend on their order, for they saturate
        "w": chance.integers(-64, 65, (OUTPUTS, 3, *size)).astype(np.int8),
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
    return model_of(nodes, [numpy_helper.from_array(np.asarray(value), name) for name, value in tensors.items()])
