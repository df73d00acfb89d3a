"""A frame of one colour around the bytes of a picture, in place of the zeros that a convolution pads with.

An INT8 convolution pads with one byte for all channels. Where they were normalised by different means, the zeros of a
float model stand for another byte in each, and the scores of a trained model tell one frame from the other. Bytes that
are copied around the picture may have any colour, and cost little beside the steps that they spare.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from worker.export.qdq import image_input

__all__ = ["FRAMED", "add_frame", "columns_of_frame", "widen_frame"]

#: The picture with its frame, uint8[N, H, W, 3].
FRAMED = "labelmill_pixels_framed"
#: From which Shape gives one axis.
OLDEST_OPSET = 15
_LEFT, _RIGHT, _TOP, _BOTTOM = (f"{FRAMED}_{side}" for side in ("left", "right", "top", "bottom"))


def add_frame(model: onnx.ModelProto, layer: onnx.NodeProto, colour: NDArray[np.uint8]) -> list[onnx.NodeProto]:
    """The nodes that make :data:`FRAMED` for a convolution, which then pads no more; none, where that cannot be."""
    given = {attribute.name: helper.get_attribute_value(attribute) for attribute in layer.attribute}
    pads = list(given.get("pads", ()))
    height, width = _size(model)
    opset = next((entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx")), 0)
    if not any(pads) or not height or not width or opset < OLDEST_OPSET:
        return []
    top, left, bottom, right = pads
    whole = left + width + right
    sizes = {_LEFT: (height, left), _RIGHT: (height, right), _TOP: (top, whole), _BOTTOM: (bottom, whole)}
    strips = {name: np.tile(colour, (1, *size, 1)) for name, size in sizes.items() if all(size)}
    shape, rows = f"{FRAMED}_shape", f"{FRAMED}_rows"
    constants: dict[str, NDArray[Any]] = {**strips, f"{FRAMED}_ones": np.ones(3, np.int64)}
    model.graph.initializer.extend(numpy_helper.from_array(value, name) for name, value in constants.items())
    for attribute in layer.attribute:
        if attribute.name == "pads":
            attribute.ints[:] = [0] * 4

    def beside(first: str, middle: str, last: str, made: str, axis: int) -> onnx.NodeProto:
        before, after = ([f"{name}_each"] if name in strips else [] for name in (first, last))
        return helper.make_node("Concat", [*before, middle, *after], [made], made, axis=axis)

    return [
        helper.make_node("Shape", [image_input(model)], [f"{FRAMED}_count"], f"{FRAMED}_count", start=0, end=1),
        helper.make_node("Concat", [f"{FRAMED}_count", f"{FRAMED}_ones"], [shape], shape, axis=0),
        *(helper.make_node("Expand", [name, shape], [f"{name}_each"], f"{name}_each") for name in strips),
        beside(_LEFT, image_input(model), _RIGHT, rows, 2),
        beside(_TOP, rows, _BOTTOM, FRAMED, 1),
    ]


def columns_of_frame(model: onnx.ModelProto) -> tuple[int, int]:
    """How many there are to the left and to the right of the picture."""
    columns = {tensor.name: int(tensor.dims[2]) for tensor in model.graph.initializer if tensor.name in (_LEFT, _RIGHT)}
    return columns.get(_LEFT, 0), columns.get(_RIGHT, 0)


def widen_frame(model: onnx.ModelProto, columns: int) -> None:
    """Add columns to the right of the frame, in place; it has some there."""
    for tensor in model.graph.initializer:
        if tensor.name in (_RIGHT, _TOP, _BOTTOM):
            wide = np.pad(numpy_helper.to_array(tensor), ((0, 0), (0, 0), (0, columns), (0, 0)), mode="edge")
            tensor.CopyFrom(numpy_helper.from_array(wide, tensor.name))


def _size(model: onnx.ModelProto) -> tuple[int, int]:
    """Height and width of the pictures; 0 where the graph takes any."""
    source = next(value for value in model.graph.input if value.name == image_input(model))
    dims = source.type.tensor_type.shape.dim
    is_images = len(dims) == 4 and source.type.tensor_type.elem_type == TensorProto.UINT8
    return (dims[1].dim_value, dims[2].dim_value) if is_images else (0, 0)
