"""Plain model files, as other tools write them: no card, float32 NCHW in, logits out."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import nn

from worker.models.torchscript import quiet_jit

CLASSES = 3
SIZE = 8


def plain_onnx(
    path: Path,
    *,
    batch: int | str = "batch",
    operator: str = "ReduceMean",
    domain: str = "",
    opset: int = 17,
    ir_version: int = 8,
    inputs: int = 1,
    before: list[int] | None = None,
    after: str | None = None,
) -> Path:
    """Logits are the means of the three channels: what a model says is easy to foretell.

    ``before`` is a shape to which the input is brought, ``after`` an operator on the means.
    """
    ends = [helper.make_tensor_value_info(f"x{n}", TensorProto.FLOAT, [batch, 3, SIZE, SIZE]) for n in range(inputs)]
    output = helper.make_tensor_value_info("logits", TensorProto.FLOAT, [batch, CLASSES])
    attributes = {"axes": [2, 3], "keepdims": 0} if operator == "ReduceMean" else {}
    source, target = "shaped" if before else "x0", "means" if after else "logits"
    nodes = [helper.make_node(operator, [source], [target], domain=domain, **attributes)]
    shape = [numpy_helper.from_array(np.array(before or [], np.int64), "shape")]
    if before:
        nodes.insert(0, helper.make_node("Reshape", ["x0", "shape"], ["shaped"]))
    if after:
        nodes.append(helper.make_node(after, ["means"], ["logits"]))
    graph = helper.make_graph(nodes, "plain", ends, [output], shape if before else [])
    imports = [helper.make_opsetid("", opset)] + ([helper.make_opsetid(domain, 1)] if domain else [])
    model = helper.make_model(graph, opset_imports=imports)
    model.ir_version = ir_version
    path.write_bytes(model.SerializeToString())
    return path


class ChannelMeans(nn.Module):
    """The same in torch."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.mean(dim=(2, 3))


class ChannelMeansOfOne(nn.Module):
    """Takes one image and no more."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.reshape(1, 3, -1).mean(dim=2)


def plain_torchscript(path: Path, module: nn.Module | None = None) -> Path:
    """A file as torch.jit.save writes it."""
    with quiet_jit():
        torch.jit.save(torch.jit.trace(module or ChannelMeans(), torch.zeros(1, 3, SIZE, SIZE)), str(path))
    return path


def with_changed_weights(path: Path, factor: float) -> None:
    """Multiply the first weight tensor of an ONNX file that has more than one dimension, in place."""
    model = onnx.load(path)
    tensor = next(t for t in model.graph.initializer if len(t.dims) > 1 and t.dims[0] > 1)
    changed = numpy_helper.to_array(tensor) * np.float32(factor)
    tensor.CopyFrom(numpy_helper.from_array(changed, tensor.name))
    onnx.save_model(model, path)
