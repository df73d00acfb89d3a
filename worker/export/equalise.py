"""Channels of a tensor made more alike, where that changes nothing but how well 8 bits tell their values apart.

A tensor has one scale for all of its channels. Between a convolution and a depthwise one each channel can be multiplied
before and divided by the same after; what is between them, a Relu or a Clip, takes part as long as no value reaches its
upper bound that did not before. A channel in which pictures to come have larger values than those that were looked at
is cut, as quantising cuts whole tensors. One form of cross-layer equalization: M. Nagel, M. van Baalen, T. Blankevoort
and M. Welling, "Data-Free Quantization Through Weight Equalization and Bias Correction", ICCV 2019 (arXiv:1906.04721).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
from numpy.typing import NDArray
from onnx import numpy_helper

__all__ = ["equalise"]

#: A channel is multiplied by this at most: pictures to come may have larger values in it than those looked at.
MOST = 8.0
#: Largest value of a channel that is as good as none.
NONE = 1e-9


@dataclass(frozen=True)
class _Pair:
    """A convolution, the tensor after its activation, and the depthwise convolution that alone reads that."""

    first: onnx.NodeProto
    between: str
    second: onnx.NodeProto


def equalise(model: onnx.ModelProto, batches: Sequence[NDArray[Any]]) -> None:
    """Equalise a float model in place. ``batches`` are inputs; what is larger in others is cut, as quantising does."""
    tensors = {tensor.name: tensor for tensor in model.graph.initializer}
    pairs = list(_pairs(model, tensors))
    for pair, largest in zip(pairs, _largest(model, [pair.between for pair in pairs], batches), strict=True):
        factor = np.clip(largest.max() / np.maximum(largest, NONE), 1, MOST).astype(np.float32)
        for name, by in (
            (pair.first.input[1], factor),
            (pair.first.input[2], factor),
            (pair.second.input[1], 1 / factor),
        ):
            values = numpy_helper.to_array(tensors[name])
            scaled = values * by.reshape(-1, *[1] * (values.ndim - 1))
            tensors[name].CopyFrom(numpy_helper.from_array(scaled, name))


def _pairs(model: onnx.ModelProto, tensors: dict[str, onnx.TensorProto]) -> Iterator[_Pair]:
    makers = {name: node for node in model.graph.node for name in node.output}
    uses = Counter(name for node in model.graph.node for name in node.input)
    uses.update(value.name for value in model.graph.output)

    def is_convolution(node: onnx.NodeProto | None) -> bool:
        own = all(name in tensors and uses[name] == 1 for name in node.input[1:]) if node else False
        return own and node is not None and node.op_type == "Conv"

    for second in model.graph.node:
        activation = makers.get(second.input[0]) if second.input else None
        if activation is None or not _begins_at_zero(activation, tensors) or uses[second.input[0]] != 1:
            continue
        first = makers.get(activation.input[0])
        if first is None or not (is_convolution(first) and is_convolution(second)) or uses[first.output[0]] != 1:
            continue
        before, after = (list(tensors[node.input[1]].dims) for node in (first, second))
        if len(first.input) == 3 and len(before) == len(after) == 4 and after[:2] == [before[0], 1]:
            yield _Pair(first, second.input[0], second)


def _begins_at_zero(activation: onnx.NodeProto, tensors: dict[str, onnx.TensorProto]) -> bool:
    """Whether it cuts at 0, so that what is larger can be multiplied before it as well as after."""
    if activation.op_type != "Clip" or len(activation.input) < 2:
        return bool(activation.op_type == "Relu")
    return activation.input[1] in tensors and float(numpy_helper.to_array(tensors[activation.input[1]])) == 0.0


def _largest(model: onnx.ModelProto, names: list[str], batches: Sequence[NDArray[Any]]) -> list[NDArray[np.float32]]:
    """float32[C] for each tensor of float32[N, C, H, W]: the largest value of each channel."""
    viewed = onnx.ModelProto()
    viewed.CopyFrom(model)
    viewed.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names)
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    session = ort.InferenceSession(viewed.SerializeToString(), options, providers=["CPUExecutionProvider"])
    source = session.get_inputs()[0].name
    found = [[v.max(axis=(0, 2, 3)) for v in session.run(names, {source: batch})] for batch in batches] if names else []
    return [np.max(values, axis=0) for values in zip(*found, strict=True)]
