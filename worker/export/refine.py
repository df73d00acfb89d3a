"""What static quantisation leaves to be done on a QDQ model, layer after layer, on pictures.

The weights of a layer are rounded together (:mod:`worker.export.rounding`), for the inputs that it gets from the layers
before it, as they are now. Then what is left of the shift of each channel's mean is taken off the bias, the empirical
form of bias correction: M. Nagel, M. van Baalen, T. Blankevoort and M. Welling, "Data-Free Quantization Through Weight
Equalization and Bias Correction", ICCV 2019 (arXiv:1906.04721).
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
from numpy.typing import NDArray
from onnx import numpy_helper

from worker.export.qdq import image_input
from worker.export.rounding import Window, moments, round_together

__all__ = ["refine"]

#: Operators that may have weights and a bias, their second and third input.
OPERATORS = ("Conv", "Gemm")
#: Inputs of one output up to which the weights of a layer are rounded together: the work grows with their square.
MOST_INPUTS = 5000
_INT32 = np.iinfo(np.int32)


@dataclass(frozen=True)
class _Constant:
    """An initializer, in units of ``step``; 1 where it is in float32 itself."""

    name: str
    step: NDArray[np.float32]


@dataclass(frozen=True)
class _Layer:
    """A node with a bias of its own. ``weights`` are None where others use them, or where they cannot be rounded."""

    node: onnx.NodeProto
    weights: _Constant | None
    bias: _Constant


def refine(model: onnx.ModelProto, original: onnx.ModelProto, batches: Sequence[NDArray[Any]], *, bits: int) -> None:
    """Refine ``model``, the QDQ form of ``original``, in place; ``batches`` are inputs of both, ``bits`` 7 or 8."""
    layers = {id(layer.node): layer for layer in _layers(model)}
    sources = {node.name: node for node in original.graph.node}
    floats = {tensor.name: tensor for tensor in original.graph.initializer}
    expected = _means_of(original, [sources[layer.node.name].output[0] for layer in layers.values()], batches)
    tensors = {tensor.name: tensor for tensor in model.graph.initializer}
    parts = _Parts(model)
    known = [{image_input(model): batch} for batch in batches]
    for (before, node), wanted in zip(parts.up_to(layers), expected, strict=True):
        layer = layers[id(node)]
        for values in known:
            parts.run(before, values)
        if layer.weights:
            weights = numpy_helper.to_array(floats[sources[node.name].input[1]])
            inputs = [values[node.input[0]] for values in known]
            rounded = _round(node, weights, layer.weights.step, inputs, 64 if bits == 7 else 127)
            tensors[layer.weights.name].CopyFrom(numpy_helper.from_array(rounded, layer.weights.name))
        for values in known:
            parts.run([node], values)
        bias, output = numpy_helper.to_array(tensors[layer.bias.name]), node.output[0]
        shift = _mean(values[output] for values in known) - wanted
        corrected = _rounded_as(bias, bias - shift / layer.bias.step)
        tensors[layer.bias.name].CopyFrom(numpy_helper.from_array(corrected, layer.bias.name))
        moved = ((corrected - bias.astype(np.float64)) * layer.bias.step).astype(np.float32)
        for values in known:
            values[output] += moved.reshape(1, -1, *[1] * (values[output].ndim - 2))


def _layers(model: onnx.ModelProto) -> Iterator[_Layer]:
    constants = {tensor.name: tensor for tensor in model.graph.initializer}
    makers = {node.output[0]: node for node in model.graph.node if node.op_type == "DequantizeLinear"}

    def constant(name: str) -> _Constant | None:
        step = np.ones((), np.float32)
        if name in makers:
            name, step = makers[name].input[0], numpy_helper.to_array(constants[makers[name].input[1]])
        return _Constant(name, step) if name in constants else None

    def can_be_rounded(node: onnx.NodeProto, weights: _Constant | None) -> bool:
        dims = constants[weights.name].dims if weights else []
        padding = [attribute.s for attribute in node.attribute if attribute.name == "auto_pad"]
        is_plain = node.op_type == "Conv" and len(dims) == 4 and padding in ([], [b"NOTSET"])
        is_stepped = weights is not None and weights.step.shape == tuple(dims[:1])
        return is_plain and is_stepped and math.prod(dims[1:]) <= MOST_INPUTS

    uses = Counter(name for node in model.graph.node for name in node.input)
    for node in model.graph.node:
        if node.op_type not in OPERATORS or len(node.input) < 3 or uses[node.input[2]] != 1:
            continue
        if any(attribute.name == "beta" and attribute.f != 1 for attribute in node.attribute):
            continue
        weights, bias = constant(node.input[1]), constant(node.input[2])
        if bias is not None and len(constants[bias.name].dims) == 1:
            is_ours = uses[node.input[1]] == 1 and can_be_rounded(node, weights)
            yield _Layer(node, weights if is_ours else None, bias)


def _round(
    node: onnx.NodeProto,
    weights: NDArray[np.float32],
    step: NDArray[np.float32],
    inputs: Sequence[NDArray[np.float32]],
    most: int,
) -> NDArray[np.int8]:
    """The weights of a convolution of planes, int8[O, I, H, W]."""
    given = {attribute.name: onnx.helper.get_attribute_value(attribute) for attribute in node.attribute}
    kernel = weights.shape[2:]
    window = Window(
        kernel=kernel,
        strides=tuple(given.get("strides", (1, 1))),
        dilations=tuple(given.get("dilations", (1, 1))),
        pads=tuple(given.get("pads", (0, 0, 0, 0))),
        groups=given.get("group", 1),
    )
    second = moments(window.read(batch) for batch in inputs)
    grouped = weights.astype(np.float64).reshape(window.groups, len(weights) // window.groups, -1)
    rounded = round_together(grouped, second, step.astype(np.float64).reshape(grouped.shape[:2]), most)
    return rounded.reshape(weights.shape)


def _rounded_as(like: NDArray[Any], values: NDArray[np.float64]) -> NDArray[Any]:
    if like.dtype == np.int32:
        return np.clip(np.rint(values), _INT32.min, _INT32.max).astype(np.int32)
    return values.astype(like.dtype)


def _means_of(model: onnx.ModelProto, names: list[str], batches: Sequence[NDArray[Any]]) -> list[NDArray[np.float64]]:
    """The mean of each of these tensors over the batches, see :func:`_mean`."""
    session = _open(model.graph.node, model, model.graph.input, names)
    source = image_input(model)
    found = [[_mean([values]) for values in session.run(names, {source: batch})] for batch in batches] if names else []
    sizes = [len(batch) for batch in batches]
    return [np.average(means, axis=0, weights=sizes) for means in zip(*found, strict=True)]


def _mean(batches: Iterable[NDArray[Any]]) -> NDArray[np.float64]:
    """float64[C]: of float[N, C, ...] in blocks, over all but the channels."""
    total, count = np.zeros(1), 0
    for values in batches:
        axes = tuple(axis for axis in range(values.ndim) if axis != 1)
        total = total + values.mean(axis=axes, dtype=np.float64) * len(values)
        count += len(values)
    return np.asarray(total / count)


class _Parts:
    """A graph in parts, each computed from what those before it left."""

    def __init__(self, model: onnx.ModelProto) -> None:
        self._model = model
        self._nodes = list(model.graph.node)
        constants = {tensor.name for tensor in model.graph.initializer}
        #: What is made of constants alone, and is made in the part that needs it.
        self._given = {n.output[0]: n for n in self._nodes if n.input and constants.issuperset(filter(None, n.input))}
        self._constants = constants | set(self._given)
        self._place = {id(node): place for place, node in enumerate(self._nodes)}
        self._last_use = {name: place for place, node in enumerate(self._nodes) for name in node.input}
        self._session: tuple[int, ort.InferenceSession] | None = None

    def up_to(self, ends: Iterable[int]) -> Iterator[tuple[list[onnx.NodeProto], onnx.NodeProto]]:
        """Each of these nodes (by ``id``), with those between it and the one before."""
        part: list[onnx.NodeProto] = []
        wanted = set(ends)
        for node in self._nodes:
            if id(node) in wanted:
                yield part, node
                part = []
            elif node.output[0] not in self._given:
                part.append(node)

    def run(self, part: list[onnx.NodeProto], values: dict[str, NDArray[Any]]) -> None:
        """Compute a part of the graph: ``values`` gain what later ones need, and lose what none does."""
        if not part:
            return
        end = self._place[id(part[-1])]
        made = {name for node in part for name in node.output}
        inputs = sorted({name for node in part for name in node.input if name} - made - self._constants)
        outputs = sorted(name for name in made if self._last_use.get(name, -1) > end) or [part[-1].output[0]]
        if self._session is None or self._session[0] != end:
            given = [self._given[name] for node in part for name in node.input if name in self._given]
            kinds = [onnx.helper.make_tensor_value_info(n, _kind(values[n]), None) for n in inputs]
            self._session = end, _open([*given, *part], self._model, kinds, outputs)
        found = self._session[1].run(outputs, {name: values[name] for name in inputs})
        values.update(zip(outputs, found, strict=True))
        for name in [name for name in values if self._last_use.get(name, -1) <= end and name not in outputs]:
            del values[name]


def _kind(values: NDArray[Any]) -> int:
    return int(onnx.helper.np_dtype_to_tensor_dtype(values.dtype))


def _open(
    nodes: Iterable[onnx.NodeProto], model: onnx.ModelProto, inputs: Iterable[onnx.ValueInfoProto], outputs: list[str]
) -> ort.InferenceSession:
    """Some nodes of a model as a graph of their own, not optimised, so that nothing is fused away."""
    nodes = list({id(node): node for node in nodes}.values())
    used = {name for node in nodes for name in node.input}
    graph = onnx.helper.make_graph(
        nodes,
        "part",
        list(inputs),
        [onnx.ValueInfoProto(name=name) for name in outputs],
        [tensor for tensor in model.graph.initializer if tensor.name in used],
    )
    part = onnx.helper.make_model(graph, opset_imports=model.opset_import, ir_version=model.ir_version)
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.intra_op_num_threads = 1
    options.enable_cpu_mem_arena = False
    options.log_severity_level = 3
    return ort.InferenceSession(part.SerializeToString(), options, providers=["CPUExecutionProvider"])
