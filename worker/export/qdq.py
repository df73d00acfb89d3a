"""What ONNX Runtime makes of a QDQ graph when it loads it, and how the graph is written so that this does no harm."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection

import numpy as np
import onnx
from onnx import numpy_helper

__all__ = [
    "drop_unused",
    "has_subgraphs",
    "image_input",
    "name_nodes",
    "names_of",
    "shield",
    "unlist_constants",
    "widen_normalisation",
]

#: Operators between the images and the first layer.
NORMALISATION = ("Add", "Cast", "Div", "Gather", "Mul", "Slice", "Sub", "Transpose")
#: Name of the constant of :func:`shield`.
LOWEST = "labelmill_lowest"


def image_input(model: onnx.ModelProto) -> str:
    """The name of the model's one input; old files list their constants as inputs, too."""
    constants = {tensor.name for tensor in model.graph.initializer}
    return str(next(value.name for value in model.graph.input if value.name not in constants))


def unlist_constants(model: onnx.ModelProto) -> None:
    """Let constants be no inputs, as old files list them; in place."""
    constants = {tensor.name for tensor in model.graph.initializer}
    for value in [value for value in model.graph.input if value.name in constants]:
        model.graph.input.remove(value)


def names_of(model: onnx.ModelProto) -> set[str]:
    """The names of all tensors and nodes."""
    names = {name for node in model.graph.node for name in (node.name, *node.input, *node.output)}
    return names | {tensor.name for tensor in model.graph.initializer}


def drop_unused(model: onnx.ModelProto) -> None:
    """Take the constants out that no node reads; in place."""
    used = {name for node in model.graph.node for name in node.input}
    for tensor in [tensor for tensor in model.graph.initializer if tensor.name not in used]:
        model.graph.initializer.remove(tensor)


def has_subgraphs(model: onnx.ModelProto) -> bool:
    """Whether a node, an If or a Loop, has a graph of its own, which may use any tensor of this one."""
    graphs = (onnx.AttributeProto.GRAPH, onnx.AttributeProto.GRAPHS)
    return any(attribute.type in graphs for node in model.graph.node for attribute in node.attribute)


def name_nodes(model: onnx.ModelProto) -> None:
    """Give each node a name of its own, by which it is found again in the quantised graph; in place."""
    seen = {""}
    for place, node in enumerate(model.graph.node):
        if node.name in seen:
            node.name = f"{node.op_type}_{place}_labelmill"
        seen.add(node.name)


def widen_normalisation(model: onnx.ModelProto, width: int) -> None:
    """Make the constants of the normalisation, one number for each channel, as wide as a picture; in place.

    ONNX Runtime computes an INT8 graph as N, H, W, C, from the input on: there a number for each channel is taken
    along rows of three, which makes two small steps cost as much as the largest layer.
    """
    constants = {tensor.name: tensor for tensor in model.graph.initializer}
    uses = Counter(name for node in model.graph.node for name in node.input)
    widened: set[str] = set()
    value = image_input(model)
    for node in model.graph.node:
        if value not in node.input or node.op_type not in NORMALISATION:
            continue
        value = node.output[0]
        for tensor in (constants[name] for name in node.input if name in constants):
            numbers = numpy_helper.to_array(tensor)
            if numbers.shape in ((1, 3, 1, 1), (3, 1, 1)) and uses[tensor.name] == 1:
                wide = np.ascontiguousarray(np.broadcast_to(numbers, (*numbers.shape[:-1], width)))
                tensor.CopyFrom(numpy_helper.from_array(wide, tensor.name))
                widened.add(tensor.name)
    for info in [info for info in model.graph.value_info if info.name in widened]:
        model.graph.value_info.remove(info)


def shield(model: onnx.ModelProto, kept: Collection[str]) -> None:
    """See that the layers of these names stay in float32; in place.

    ONNX Runtime quantises the weights of a float layer between two quantised tensors by itself, and with one scale for
    all channels. It does so only where nothing else is between the layer and what follows: a maximum that changes
    nothing is enough.
    """
    for place, node in reversed(list(enumerate(model.graph.node))):
        if node.name in kept:
            output, bare = node.output[0], f"{node.output[0]}_bare"
            node.output[0] = bare
            maximum = onnx.helper.make_node("Max", [bare, LOWEST], [output], name=f"{node.name}_shield")
            model.graph.node.insert(place + 1, maximum)
    if kept:
        lowest = np.asarray(np.finfo(np.float32).min, np.float32)
        model.graph.initializer.append(numpy_helper.from_array(lowest, LOWEST))
