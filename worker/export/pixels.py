"""The pixels themselves as the first quantised tensor of an INT8 graph.

A model of ours normalises bytes: (x - mean) * scale. Quantising the result would give the very bytes back, with the
mean as the zero point and the scale as the step, were they the same for all channels. So the steps in between, a tenth
of an INT8 model's time, can go: what differs by channel is put into the weights and biases of the first layer.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from jobs.errors import ExportError
from worker.export.frame import FRAMED, add_frame
from worker.export.qdq import drop_unused, image_input, names_of

__all__ = ["NORMALISED", "PixelRange", "even_out", "take_pixels"]

#: The tensor of normalised pixels in the graphs that :func:`even_out` has changed.
NORMALISED = "labelmill_pixels_normalised"
_BYTES, _PLANES = "labelmill_pixels_bytes", "labelmill_pixels_planes"
#: From N, H, W, C to N, C, H, W.
_TO_PLANES = [0, 3, 1, 2]
_FLOAT, _UINT8 = TensorProto.FLOAT, TensorProto.UINT8


class PixelRange(NamedTuple):
    """What the bytes 0 and 255 are when they are normalised: the range that makes each byte its own step."""

    lowest: float
    highest: float


@dataclass(frozen=True)
class _Start:
    """How a graph begins: ``nodes`` make ``gain * byte + offset`` (one number for each channel) for ``layer``."""

    nodes: list[onnx.NodeProto]
    gain: NDArray[np.float64]
    offset: NDArray[np.float64]
    layer: onnx.NodeProto


def even_out(model: onnx.ModelProto) -> PixelRange | None:
    """Normalise all channels of a float model alike, in place; None, and no change, where it does not begin so.

    The first layer makes up for the difference: exactly where the means are one whole number, else but for what it pads
    with, which stands for the mean of each channel. There the picture gets a frame of these, as whole numbers; where it
    cannot have one (see :func:`~worker.export.frame.add_frame`), what is padded has one colour.
    """
    start = _start(model)
    if start is None or any(name.startswith("labelmill_pixels") for name in names_of(model)):
        return None
    means = -start.offset / start.gain
    zero = int(np.clip(np.rint(means.mean()), 0, 255))
    scale = float(start.gain.mean())
    colour = np.clip(np.rint(means), 0, 255).astype(np.uint8)
    frame = add_frame(model, start.layer, colour) if np.any(colour != zero) else []
    _make_up(model, start, zero, scale)
    constants = {"mean": zero, "scale": scale}
    for name, value in constants.items():
        model.graph.initializer.append(numpy_helper.from_array(np.asarray(value, np.float32), f"{NORMALISED}_{name}"))
    source = FRAMED if frame else image_input(model)
    nodes = [
        *frame,
        helper.make_node("Transpose", [source], [_BYTES], name=_BYTES, perm=_TO_PLANES),
        helper.make_node("Cast", [_BYTES], [_PLANES], name=_PLANES, to=_FLOAT),
        helper.make_node("Sub", [_PLANES, f"{NORMALISED}_mean"], [f"{_PLANES}_moved"], name=f"{_PLANES}_moved"),
        helper.make_node("Mul", [f"{_PLANES}_moved", f"{NORMALISED}_scale"], [NORMALISED], name=NORMALISED),
    ]
    start.layer.input[0] = NORMALISED
    _replace(model, start.nodes, nodes)
    return PixelRange(-zero * scale, (255 - zero) * scale)


def take_pixels(model: onnx.ModelProto) -> None:
    """Let the first layer of a QDQ graph that :func:`even_out` has prepared read the bytes of the picture, in place."""
    made = {node.output[0]: node for node in model.graph.node}
    quantise = next((node for node in model.graph.node if list(node.input[:1]) == [NORMALISED]), None)
    if quantise is None or quantise.op_type != "QuantizeLinear":
        return  # the layer stays in float32
    constants = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    step, zero = (constants[name] for name in quantise.input[1:3])
    mean, scale = constants[f"{NORMALISED}_mean"], constants[f"{NORMALISED}_scale"]
    if int(zero) != int(mean) or not np.isclose(step, scale, rtol=1e-5, atol=0):
        raise ExportError(f"bytes are not their own steps: zero point {zero} for {mean}, step {step} for {scale}")
    for node in model.graph.node:
        node.input[:] = [_BYTES if name == quantise.output[0] else name for name in node.input]
    steps = (NORMALISED, f"{_PLANES}_moved", _PLANES)
    _replace(model, [quantise, *(made[name] for name in steps)], [])


def _start(model: onnx.ModelProto) -> _Start | None:
    """How the graph begins, where that is a transposition and one line for each channel, and then a convolution."""
    source = image_input(model)
    types = {value.name: value.type.tensor_type.elem_type for value in model.graph.input}
    uses = Counter(name for node in model.graph.node for name in node.input)
    uses.update(value.name for value in model.graph.output)
    constants = {tensor.name: tensor for tensor in model.graph.initializer}
    readers = {name: node for node in model.graph.node for name in node.input}
    gain, offset = np.ones(3), np.zeros(3)
    nodes: list[onnx.NodeProto] = []
    if types[source] != _UINT8:
        return None
    node = next((n for n in model.graph.node if source in n.input and n.op_type in ("Transpose", "Cast")), None)
    kinds: list[str] = []
    while node is not None and node.op_type != "Conv":
        kinds.append(node.op_type)
        if node.op_type in ("Add", "Sub", "Mul", "Div"):
            numbers = _numbers(node, constants)
            if numbers is None or "Transpose" not in kinds or "Cast" not in kinds:
                return None
            gain, offset = _applied(node.op_type, numbers, gain, offset)
        elif not _is_rearrangement(node):
            return None
        nodes.append(node)
        value = node.output[0]
        node = readers.get(value) if uses[value] == 1 else None
    if node is None or kinds.count("Transpose") != 1 or kinds.count("Cast") != 1 or not np.all(gain > 0):
        return None
    return _Start(nodes, gain, offset, node) if _can_make_up(node, nodes[-1].output[0], constants, uses) else None


def _is_rearrangement(node: onnx.NodeProto) -> bool:
    given = {attribute.name: helper.get_attribute_value(attribute) for attribute in node.attribute}
    if node.op_type == "Transpose":
        return bool(given.get("perm") == _TO_PLANES)
    return bool(node.op_type == "Cast" and given.get("to") == _FLOAT)


def _numbers(node: onnx.NodeProto, constants: dict[str, onnx.TensorProto]) -> NDArray[np.float64] | None:
    """The constant of a step of arithmetic whose other side is the picture: one number for each channel."""
    name = node.input[1]
    if name not in constants or node.input[0] in constants:
        return None
    numbers = numpy_helper.to_array(constants[name]).astype(np.float64)
    if numbers.size == 1:
        return np.full(3, float(numbers.reshape(())))
    return numbers.reshape(3) if numbers.shape in ((1, 3, 1, 1), (3, 1, 1)) else None


def _applied(
    kind: str, numbers: NDArray[np.float64], gain: NDArray[np.float64], offset: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    if kind in ("Add", "Sub"):
        return gain, offset + (numbers if kind == "Add" else -numbers)
    factor = numbers if kind == "Mul" else 1 / np.where(numbers, numbers, np.inf)
    return gain * factor, offset * factor


def _can_make_up(layer: onnx.NodeProto, value: str, constants: dict[str, onnx.TensorProto], uses: Counter[str]) -> bool:
    """Whether a convolution mixes all three channels, with weights of its own."""
    own = all(name in constants and uses[name] == 1 for name in layer.input[1:])
    weights = constants.get(layer.input[1])
    return own and layer.input[0] == value and weights is not None and len(weights.dims) == 4 and weights.dims[1] == 3


def _make_up(model: onnx.ModelProto, start: _Start, zero: int, scale: float) -> None:
    """Weights and biases of the first layer for ``(byte - zero) * scale`` in place of what it read."""
    constants = {tensor.name: tensor for tensor in model.graph.initializer}
    layer = start.layer
    weights = numpy_helper.to_array(constants[layer.input[1]]).astype(np.float64)
    by_channel = weights.sum(axis=(2, 3))  # [O, 3]
    moved = by_channel @ (start.offset + start.gain * zero)
    scaled = weights * (start.gain / scale).reshape(1, 3, 1, 1)
    constants[layer.input[1]].CopyFrom(numpy_helper.from_array(scaled.astype(np.float32), layer.input[1]))
    if len(layer.input) < 3 or not layer.input[2]:
        del layer.input[2:]
        layer.input.append(f"{NORMALISED}_bias")
        model.graph.initializer.append(numpy_helper.from_array(moved.astype(np.float32), layer.input[2]))
        return
    bias = numpy_helper.to_array(constants[layer.input[2]]) + moved
    constants[layer.input[2]].CopyFrom(numpy_helper.from_array(bias.astype(np.float32), layer.input[2]))


def _replace(model: onnx.ModelProto, old: list[onnx.NodeProto], new: list[onnx.NodeProto]) -> None:
    """Put other nodes in the place of those behind the input, with all that belonged to these alone."""
    names = {name for node in old for name in node.output}
    for node in old:
        model.graph.node.remove(node)
    for node in reversed(new):
        model.graph.node.insert(0, node)
    for info in [info for info in model.graph.value_info if info.name in names]:
        model.graph.value_info.remove(info)
    drop_unused(model)
