"""The range of values that each tensor of a graph takes, from pictures.

A tensor's 256 steps are spread over its range, so a single outlier makes all steps coarse. Beside the plain minimum
and maximum there are two ways to cut the tails: at a percentile, or where the squared error of rounding and cutting
together is least over the tensor's histogram.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np
import onnx
import onnxruntime as ort
from numpy.typing import NDArray

from worker.models.runtime import Images

__all__ = ["METHODS", "Histogram", "observe"]

METHODS = ("minmax", "percentile", "mse")
#: Bins of a histogram.
BINS = 2048
#: Share of the values that the percentile method keeps.
KEPT = 0.9999
#: Steps of an 8-bit number.
STEPS = 255
#: Shares of the full range that the mse method tries.
SHARES = np.linspace(0.3, 1.0, 36)
#: Values of a tensor that go into its histogram from each batch, evenly spread.
SAMPLED = 50_000


@dataclass
class Histogram:
    """Smallest and largest value of a tensor over all pictures, and counts of :data:`BINS` bins between them."""

    low: float = np.inf
    high: float = -np.inf
    counts: NDArray[np.int64] = field(default_factory=lambda: np.zeros(BINS, np.int64))

    def widen(self, values: NDArray[np.float32]) -> None:
        """First pass: the extremes."""
        self.low, self.high = min(self.low, float(values.min())), max(self.high, float(values.max()))

    def fill(self, values: NDArray[np.float32]) -> None:
        """Second pass: the counts."""
        flat = values.ravel()
        flat = flat[:: max(1, len(flat) // SAMPLED)]
        high = max(self.high, self.low + max(1e-9, 1e-3 * abs(self.low)))  # one value alone has no width
        self.counts = self.counts + np.histogram(flat, BINS, (self.low, high))[0]

    def limits(self, method: str) -> tuple[float, float]:
        """Lowest and highest value to be told apart, by one of :data:`METHODS`."""
        if method == "minmax" or self.high <= self.low:
            return self.low, self.high
        return self._percentile() if method == "percentile" else self._least_error()

    def _percentile(self) -> tuple[float, float]:
        below = np.cumsum(self.counts) / np.sum(self.counts)
        edges = np.linspace(self.low, self.high, BINS + 1)
        tail = (1 - KEPT) / 2
        first, last = np.searchsorted(below, (tail, 1 - tail))
        return float(edges[first]), float(edges[min(last + 1, BINS)])

    def _least_error(self) -> tuple[float, float]:
        edges = np.linspace(self.low, self.high, BINS + 1)
        centres = (edges[1:] + edges[:-1]) / 2
        errors = [self._error(centres, share) for share in SHARES]
        share = float(SHARES[int(np.argmin(errors))])
        return self.low * share, self.high * share

    def _error(self, centres: NDArray[np.float64], share: float) -> float:
        low, high = self.low * share, self.high * share
        step = (high - low) / STEPS
        rounded = np.clip(np.round((centres - low) / step), 0, STEPS) * step + low
        return float((self.counts * (rounded - centres) ** 2).sum())


def observe(model: onnx.ModelProto, batches: Iterable[Images]) -> dict[str, Histogram]:
    """Run the graph over the batches, twice, and collect a histogram of every float tensor in it.

    The model has one input, the images. ``batches`` must be iterable twice.
    """
    session, names = _open_to_view(model)
    source = session.get_inputs()[0].name
    of_input = [source] if session.get_inputs()[0].type == "tensor(float)" else []
    histograms = {name: Histogram() for name in [*names, *of_input]}
    for visit in (Histogram.widen, Histogram.fill):
        for batch in batches:
            for name, values in zip(names, session.run(names, {source: batch}), strict=True):
                visit(histograms[name], values)
            if source in histograms:
                visit(histograms[source], np.asarray(batch, np.float32))
    return histograms


def _open_to_view(model: onnx.ModelProto) -> tuple[ort.InferenceSession, list[str]]:
    """The graph with all its float tensors as outputs, not optimised, so that none is fused away."""
    inferred = onnx.shape_inference.infer_shapes(model)
    floats = {value.name for value in (*inferred.graph.value_info, *inferred.graph.output) if _is_float(value)}
    names = [name for node in model.graph.node for name in node.output if name in floats]
    viewed = onnx.ModelProto()
    viewed.CopyFrom(model)
    known = {value.name for value in viewed.graph.output}
    for name in names:
        if name not in known:
            viewed.graph.output.append(onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None))
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.intra_op_num_threads = 1
    options.enable_cpu_mem_arena = False
    options.log_severity_level = 3
    return ort.InferenceSession(viewed.SerializeToString(), options, providers=["CPUExecutionProvider"]), names


def _is_float(value: onnx.ValueInfoProto) -> bool:
    return bool(value.type.tensor_type.elem_type == onnx.TensorProto.FLOAT)
