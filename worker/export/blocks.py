"""Four pixels of a row at a time for the first layer of an INT8 graph: the same sums, from larger pieces.

ONNX Runtime copies what a window of a convolution covers pixel by pixel, and three bytes at a time cost it more than
the sums do. Four neighbouring pixels of three channels are one of twelve, without a byte being moved; a window of them
covers some pixels too many, whose weights are zero, and gives its two or four neighbouring results as channels, which
lie in memory as the results of a row do. ONNX Runtime finds that none of this has to be rearranged.
"""

from __future__ import annotations

from collections import Counter
from typing import Any, NamedTuple

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from worker.export.frame import FRAMED, columns_of_frame, widen_frame
from worker.export.qdq import drop_unused, image_input, names_of

__all__ = ["take_blocks"]

#: Pixels of a block.
BLOCK = 4
#: Begins the names of what is added.
_NAME = "labelmill_blocks"
#: Operators that treat each value alike, which may be between the layer and its quantisation.
_ALIKE = ("Clip", "Relu")


class _Layer(NamedTuple):
    """The nodes from the bytes of a picture to the first quantised tensor; ``kernel`` and ``bias`` are dequantised."""

    transpose: onnx.NodeProto
    pixels: onnx.NodeProto
    kernel: onnx.NodeProto
    bias: onnx.NodeProto
    convolution: onnx.NodeProto
    quantise: onnx.NodeProto


class _Window(NamedTuple):
    """A window in pixels: its size, steps, and what lies around the picture: top, left, bottom, right.

    ``width`` is the picture's with its frame, and with ``added`` columns that make it whole blocks; ``results`` are
    those of a row.
    """

    size: tuple[int, int]
    strides: tuple[int, int]
    pads: tuple[int, int, int, int]
    width: int
    added: int
    results: int

    @property
    def first(self) -> int:
        """The first block of a window, from the block that its first result stands for."""
        return -self.pads[1] // BLOCK

    @property
    def blocks(self) -> int:
        """How many blocks a window covers."""
        last = BLOCK - self.strides[1] - self.pads[1] + self.size[1] - 1
        return last // BLOCK - self.first + 1

    @property
    def after(self) -> int:
        """How many blocks are padded behind a row, so that there are as many windows as blocks of results."""
        windows = self.results * self.strides[1] // BLOCK
        return windows + self.blocks - 1 + self.first - self.width // BLOCK


def take_blocks(model: onnx.ModelProto, width: int) -> bool:
    """Let the first layer of a QDQ graph take blocks of pixels, in place; ``width`` is a picture's.

    False, and no change, where the graph does not begin with bytes that a convolution halves or quarters in width.
    """
    layer = _layer(model)
    window = _window(layer, model, width) if layer else None
    if layer is None or window is None or any(name.startswith(_NAME) for name in names_of(model)):
        return False
    constants = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    if not _is_symmetric(layer, constants):
        return False
    results = BLOCK // window.strides[1]
    weights = _in_blocks(constants[layer.kernel.input[0]], window)
    own: dict[str, NDArray[Any]] = {"kernel": weights}
    own |= {f"kernel_{i}": np.tile(constants[name], results) for i, name in enumerate(layer.kernel.input) if i}
    own |= {f"bias_{i}": np.tile(constants[name], results) for i, name in enumerate(layer.bias.input)}
    own["shape_of_blocks"] = np.array([0, 0, window.width // BLOCK, 3 * BLOCK])
    own["shape_of_results"] = np.array([0, 0, window.results, len(weights) // results])
    model.graph.initializer.extend(numpy_helper.from_array(value, f"{_NAME}_{name}") for name, value in own.items())
    widen_frame(model, window.added)
    _rewire(model, layer, window)
    return True


def _layer(model: onnx.ModelProto) -> _Layer | None:
    makers = {node.output[0]: node for node in model.graph.node}
    readers = {name: node for node in model.graph.node for name in node.input}
    uses = Counter(name for node in model.graph.node for name in node.input)
    uses.update(value.name for value in model.graph.output)
    constants = {tensor.name for tensor in model.graph.initializer}
    source = FRAMED if FRAMED in makers else image_input(model)
    chain = [node for node in model.graph.node if source in node.input and node.op_type == "Transpose"]
    for _ in range(2):
        if chain and uses[chain[-1].output[0]] == 1 and chain[-1].output[0] in readers:
            chain.append(readers[chain[-1].output[0]])
    if [node.op_type for node in chain] != ["Transpose", "DequantizeLinear", "Conv"] or len(chain[-1].input) != 3:
        return None
    transpose, pixels, convolution = chain
    if [list(attribute.ints) for attribute in transpose.attribute] != [[0, 3, 1, 2]]:
        return None
    kernel, bias = (makers.get(name) for name in convolution.input[1:])
    after = convolution
    while uses[after.output[0]] == 1 and after.output[0] in readers and after.op_type in ("Conv", *_ALIKE):
        after = readers[after.output[0]]
    if kernel is None or bias is None or after.op_type != "QuantizeLinear":
        return None
    own = all(node.op_type == "DequantizeLinear" and constants.issuperset(node.input) for node in (kernel, bias))
    alone = all(uses[node.output[0]] == 1 and len(node.input) == 3 for node in (kernel, bias))
    return _Layer(transpose, pixels, kernel, bias, convolution, after) if own and alone else None


def _is_symmetric(layer: _Layer, constants: dict[str, NDArray[Any]]) -> bool:
    """Whether a step of each result's own and no zero point belong to kernel and bias, so that 0 is nothing."""
    outputs = len(constants[layer.kernel.input[0]])
    numbers = [constants[name] for node in (layer.kernel, layer.bias) for name in node.input[1:]]
    return all(n.shape == (outputs,) for n in numbers) and not any(n.any() for n in numbers[1::2])


def _window(layer: _Layer, model: onnx.ModelProto, width: int) -> _Window | None:
    """The window, where each block of pixels gives whole results."""
    given = {attribute.name: helper.get_attribute_value(attribute) for attribute in layer.convolution.attribute}
    size, strides = given.get("kernel_shape", ()), given.get("strides", (1, 1))
    pads = tuple(given.get("pads", (0, 0, 0, 0)))
    is_plain = given.get("group", 1) == 1 and set(given.get("dilations", (1,))) == {1}
    if len(size) != 2 or not is_plain or given.get("auto_pad", b"NOTSET") != b"NOTSET" or strides[1] not in (2, 4):
        return None
    left, right = columns_of_frame(model)
    whole = left + width + right
    added = -whole % BLOCK
    results = (whole + pads[1] + pads[3] - size[1]) // strides[1] + 1
    window = _Window((size[0], size[1]), (strides[0], strides[1]), pads, whole + added, added, results)
    is_even = results * strides[1] % BLOCK == 0 and window.after >= 0
    return window if is_even and (right or not added) else None


def _in_blocks(weights: NDArray[np.int8], window: _Window) -> NDArray[np.int8]:
    """Weights int8[results x O, pixels x 3, H, blocks] of int8[O, 3, H, W]."""
    outputs, channels, height, size = weights.shape
    results = BLOCK // window.strides[1]
    blocks = np.zeros((results, outputs, BLOCK, channels, height, window.blocks), np.int8)
    for result in range(results):
        for column in range(size):
            block, pixel = divmod(result * window.strides[1] - window.pads[1] + column, BLOCK)
            blocks[result, :, pixel, :, :, block - window.first] = weights[:, :, :, column]
    return blocks.reshape(results * outputs, BLOCK * channels, height, window.blocks)


def _rewire(model: onnx.ModelProto, layer: _Layer, window: _Window) -> None:
    def named(part: str) -> str:
        return f"{_NAME}_{part}"

    layer.pixels.input[0] = named("planes")
    for node, part, first in ((layer.kernel, "kernel", "kernel"), (layer.bias, "bias", "bias_0")):
        node.input[:] = [named(first), named(f"{part}_1"), named(f"{part}_2")]
    layer.convolution.ClearField("attribute")
    top, _, bottom, _ = window.pads
    pads = [top, -window.first, bottom, window.after]
    settings = {"kernel_shape": [window.size[0], window.blocks], "strides": [window.strides[0], 1], "pads": pads}
    layer.convolution.attribute.extend(helper.make_attribute(name, value) for name, value in settings.items())
    result = layer.quantise.output[0]
    layer.quantise.output[0] = named("quantised")
    source = layer.transpose.input[0]
    before = [
        helper.make_node("Reshape", [source, named("shape_of_blocks")], [named("pixels")], named("pixels")),
        helper.make_node("Transpose", [named("pixels")], [named("planes")], named("planes"), perm=[0, 3, 1, 2]),
    ]
    after = [
        helper.make_node("Transpose", [named("quantised")], [named("rows")], named("rows"), perm=[0, 2, 3, 1]),
        helper.make_node("Reshape", [named("rows"), named("shape_of_results")], [named("row")], named("row")),
        helper.make_node("Transpose", [named("row")], [result], named("results"), perm=[0, 3, 1, 2]),
    ]
    place = list(model.graph.node).index(layer.quantise)
    for node in reversed(after):
        model.graph.node.insert(place + 1, node)
    place = list(model.graph.node).index(layer.transpose)
    model.graph.node.remove(layer.transpose)
    for node in reversed(before):
        model.graph.node.insert(place, node)
    del model.graph.value_info[:]  # some of the shapes are others now
    drop_unused(model)
