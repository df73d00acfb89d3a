"""The inside of a model file, for people: inputs, outputs, opset, graph, source."""

from __future__ import annotations

import re
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from jobs.errors import ModelCorruptError, ModelUnsupportedError
from worker.models.onnx_header import read_onnx_header
from worker.models.reader import ZIP_ERRORS, read_card

__all__ = ["code", "ends", "graph"]

#: Values of an attribute longer than this (characters) are cut.
SHOWN_CHARACTERS = 60


def ends(path: Path, kind: str) -> dict[str, str]:
    """Inputs, outputs and versions; a TorchScript file declares no shapes, so its card speaks for it."""
    if kind != "onnx":
        return _torch_ends(path)
    from worker.models.onnx import open_session

    header = read_onnx_header(path)
    session = open_session(path)
    return {
        "inputs": "; ".join(_end(node) for node in session.get_inputs()),
        "outputs": "; ".join(_end(node) for node in session.get_outputs()),
        "opset": ", ".join(f"{domain or 'ai.onnx'} {version}" for domain, version in header.opsets.items()),
        "ir version": str(header.ir_version),
        "producer": header.producer,
    }


def graph(path: Path, kind: str) -> Iterator[str]:
    """One operation a line: ONNX's nodes, or TorchScript's inlined graph.

    Raises :class:`~jobs.errors.ModelUnsupportedError` where the package to read it is missing.
    """
    try:
        if kind == "onnx":
            return _onnx_graph(path)
        return iter(_torch_graph(path, kind).splitlines())
    except ImportError as exc:
        raise ModelUnsupportedError(f"the graph needs {exc.name}; install labelmill[export]") from exc


def code(path: Path) -> Iterator[str]:
    """The source of every class in a TorchScript file, as torch stored it; needs no torch."""
    try:
        with zipfile.ZipFile(path) as archive:
            for name in archive.namelist():
                if re.search(r"/code/.*\.py$", name):
                    yield f"# {name.partition('/code/')[2]}"
                    yield archive.read(name).decode()
    except ZIP_ERRORS as exc:
        raise ModelCorruptError(f"{path}: cut short or damaged ({exc})") from exc


def _torch_ends(path: Path) -> dict[str, str]:
    card = read_card(path)
    height, width = card.preprocessing.size
    shape = f"[batch, {height}, {width}, 3]" if card.input == "uint8_nhwc" else f"[batch, 3, {height}, {width}]"
    return {
        "inputs": f"images {card.input.partition('_')[0]} {shape}",
        "outputs": f"{card.output} float32 [batch, {len(card.labels)}]",
    }


def _end(node: Any) -> str:
    kind = re.sub(r"tensor\((\w+)\)", r"\1", node.type)
    return f"{node.name} {kind} [{', '.join(str(size) for size in node.shape)}]"


def _torch_graph(path: Path, kind: str) -> str:
    import torch

    if kind == "torch_export":
        return str(torch.export.load(str(path)).graph)
    from worker.models.torchscript import quiet_jit

    with quiet_jit():
        return str(torch.jit.load(str(path), map_location="cpu").inlined_graph)


def _onnx_graph(path: Path) -> Iterator[str]:
    import onnx

    model = onnx.load_model(str(path))
    return _nodes(model.graph.node, onnx.helper, "")


def _nodes(nodes: Any, helper: Any, indent: str) -> Iterator[str]:
    for node in nodes:
        attributes = [a for a in node.attribute if not a.HasField("g")]
        shown = ", ".join(f"{a.name}={_shown(helper.get_attribute_value(a))}" for a in attributes)
        call = f"{node.op_type}({', '.join(node.input)})"
        yield f"{indent}{', '.join(node.output)} = {call} {shown}".rstrip()
        for branch in (a for a in node.attribute if a.HasField("g")):
            yield f"{indent}  {branch.name}:"
            yield from _nodes(branch.g.node, helper, indent + "    ")


def _shown(value: Any) -> str:
    text = value.decode(errors="replace") if isinstance(value, bytes) else " ".join(str(value).split())
    return text if len(text) <= SHOWN_CHARACTERS else text[:SHOWN_CHARACTERS] + "..."
