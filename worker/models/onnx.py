"""ONNX files in ONNX Runtime. Imports no torch."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray
from onnxruntime.capi import onnxruntime_pybind11_state as ort_errors

from jobs.errors import (
    FixedBatchError,
    ModelCardError,
    ModelCorruptError,
    ModelRunError,
    ModelUnsupportedError,
)
from worker.models.card import ModelCard
from worker.models.device import first_that_is_right, on_device
from worker.models.onnx_cuda import BoundRun, has_cuda, ready_cuda, took_cuda
from worker.models.onnx_header import read_onnx_header
from worker.models.runtime import Images, Scores
from worker.models.tensors import check_scores, empty_scores, to_input, to_scores

__all__ = ["OnnxRuntime", "load_onnx", "open_session"]

#: How a session may compute on a device, the fastest first; the last is as exact as the file.
PRECISIONS = {"cpu": ("float32",), "cuda": ("tf32", "float32")}
#: ONNX Runtime's name of the element type that each kind of input asks for.
_INPUT_TYPES = {"uint8_nhwc": "tensor(uint8)", "float32_nchw": "tensor(float)"}
#: Nothing but its own death from ONNX Runtime's log: an error comes as an exception, and a user reads one line.
_LOG_FATAL = 4


class OnnxRuntime:
    """One session; safe to share between threads.

    ``run`` computes a batch in place of the session's own ``run``: see :class:`~worker.models.onnx_cuda.BoundRun`.
    """

    decodes = True

    def __init__(
        self,
        session: ort.InferenceSession,
        card: ModelCard,
        digest: str,
        *,
        device: str = "cpu",
        precision: str = "float32",
        run: Callable[[NDArray[Any]], NDArray[Any]] | None = None,
    ) -> None:
        self.card = card
        self.digest = digest
        self.device = device
        self.precision = precision
        self._session = session
        self._input = session.get_inputs()[0].name
        self._output = session.get_outputs()[0].name
        self._run = run or self._run_session

    def predict(self, images: Images) -> Scores:
        """Final scores: ``uint8[N, H, W, 3]`` in, ``float32[N, C]`` out; no images give no rows."""
        if not len(images):
            return empty_scores(self.card)
        try:
            output = self._run(to_input(images, self.card))
        except Exception as exc:
            raise ModelRunError(f"{self.card.name}: {_first_line(exc)}") from exc
        return to_scores(output, self.card)

    def shrink(self) -> None:
        """Give back what the arena keeps: the memory of the largest batch so far. A GPU's stays."""
        if self.device == "cpu":
            options = ort.RunOptions()
            options.add_run_config_entry("memory.enable_memory_arena_shrinkage", "cpu:0")
            black = np.zeros((1, *self.card.preprocessing.size, 3), np.uint8)
            try:
                self._session.run([self._output], {self._input: to_input(black, self.card)}, options)
            except Exception as exc:
                raise ModelRunError(f"{self.card.name}: {_first_line(exc)}") from exc

    def _run_session(self, batch: NDArray[Any]) -> NDArray[Any]:
        (output,) = self._session.run([self._output], {self._input: batch})
        return np.asarray(output)


def load_onnx(path: Path, card: ModelCard, digest: str, *, threads: int = 1, device: str = "cpu") -> OnnxRuntime:
    """A session for the file, checked against its card.

    Raises a :class:`~jobs.errors.ModelFileError` of the class that fits: corrupt, unsupported, of a fixed
    batch, or with a card that does not match.
    """
    if read_onnx_header(path).external:
        raise ModelUnsupportedError(
            f"{path}: some of its weights are in another file, which its digest would not cover; make it one: "
            "onnx.save(onnx.load(FILE), NEW)"
        )
    needs = "install onnxruntime-gpu in onnxruntime's place"
    return on_device(device, partial(_load, path, card, digest, threads), has_cuda=has_cuda, needs=needs)


def _load(path: Path, card: ModelCard, digest: str, threads: int, device: str) -> OnnxRuntime:
    def make(precision: str) -> OnnxRuntime:
        session = open_session(path, threads=threads, device=device, precision=precision)
        _check_input(session, card, path)
        _check_output(session, card, path)
        run = BoundRun(session, (len(card.labels),), device) if device == "cuda" else None
        return OnnxRuntime(session, card, digest, device=device, precision=precision, run=run)

    return first_that_is_right(PRECISIONS[device], make, card)


def open_session(
    path: Path, *, threads: int = 1, device: str = "cpu", precision: str = "float32"
) -> ort.InferenceSession:
    """A session of ``threads`` threads on ``cpu`` or ``cuda``, with ONNX Runtime's errors made ours.

    Its arena, which ONNX Runtime has unless it is told not to, keeps the memory of the largest batch. Taken from the
    heap anew for each batch, it made most processes slower, and those with large batches by half (``python -m
    benchmarks.heap``).
    """
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.execution_mode = ort.ExecutionMode.ORT_SEQUENTIAL
    options.log_severity_level = _LOG_FATAL
    ort.disable_telemetry_events()
    provider = ready_cuda(precision) if device == "cuda" else "CPUExecutionProvider"
    try:
        session = ort.InferenceSession(str(path), options, providers=[provider], enable_fallback=0)
    except ort_errors.InvalidProtobuf as exc:
        raise ModelCorruptError(f"{path}: no whole ONNX file; export it or copy it again") from exc
    except Exception as exc:
        raise ModelUnsupportedError(
            f"{path} ({_versions(path)}): onnxruntime {ort.__version__} cannot run it: {_load_reason(exc)}"
        ) from exc
    if device == "cuda" and not took_cuda(session):
        raise ModelUnsupportedError(
            "the device 'cuda' cannot be used here: onnxruntime finds no GPU, or misses a library of CUDA or cuDNN; "
            "see python -c 'import onnxruntime; onnxruntime.print_debug_info()', or use cpu"
        )
    return session


def _check_input(session: ort.InferenceSession, card: ModelCard, path: Path) -> None:
    inputs = session.get_inputs()
    if len(inputs) != 1:
        names = ", ".join(node.name for node in inputs)
        raise ModelUnsupportedError(f"{path}: a worker feeds one input, the images; this model takes {names}")
    (node,) = inputs
    if node.type != _INPUT_TYPES[card.input]:
        raise ModelCardError(
            f"{path}: the card says {card.input} but the input {node.name!r} is a {node.type}; mend 'input' in the card"
        )
    height, width = card.preprocessing.size
    wanted = [None, height, width, 3] if card.input == "uint8_nhwc" else [None, 3, height, width]
    shape = list(node.shape)
    if len(shape) != 4 or any(
        isinstance(n, int) and w is not None and n != w for n, w in zip(shape, wanted, strict=True)
    ):
        raise ModelCardError(f"{path}: the card makes images of {wanted[1:]} but the input takes {shape[1:]}")
    if isinstance(shape[0], int):
        raise FixedBatchError(
            f"{path}: the batch is fixed at {shape[0]}; export it again with a dynamic first axis "
            "(torch.onnx.export's dynamic_shapes)"
        )


def _check_output(session: ort.InferenceSession, card: ModelCard, path: Path) -> None:
    """Compare the labels with the declared output, and with what comes out.

    The golden sample is a run of one image and of several; a file without it is run here.
    """
    node = session.get_outputs()[0]
    shape = node.shape
    if node.type != "tensor(float)":
        raise ModelCardError(f"{path}: the output {node.name!r} is a {node.type}; a worker takes float32 scores")
    if shape and len(shape) == 2 and isinstance(shape[1], int):
        check_scores(np.zeros((1, shape[1]), np.float32), card, 1)
        if card.golden is not None:
            return
    check_scores(_run(session, card, path, batch=1), card, 1)
    check_scores(_run(session, card, path, batch=2), card, 2)


def _run(session: ort.InferenceSession, card: ModelCard, path: Path, *, batch: int) -> Any:
    black = np.zeros((batch, *card.preprocessing.size, 3), np.uint8)
    names = session.get_outputs()[0].name, session.get_inputs()[0].name
    try:
        return session.run([names[0]], {names[1]: to_input(black, card)})[0]
    except Exception as exc:
        if batch == 1:
            raise ModelUnsupportedError(f"{path}: it fails on a black image: {_first_line(exc)}") from exc
        raise FixedBatchError(f"{path}: it takes one image but not {batch}: {_first_line(exc)}") from exc


def _versions(path: Path) -> str:
    header = read_onnx_header(path)
    opsets = ", ".join(f"opset {version} of {domain or 'ai.onnx'}" for domain, version in header.opsets.items())
    return f"{opsets}, IR version {header.ir_version}"


def _load_reason(exc: Exception) -> str:
    """ONNX Runtime's sentence without its code, our path, and the place in its source."""
    reason = _first_line(exc).partition(" failed:")[2] or _first_line(exc)
    return re.sub(r"^/onnxruntime_src/\S+:\d+ .*?\) (?=[A-Z])", "", reason)


def _first_line(exc: Exception) -> str:
    return str(exc).strip().partition("\n")[0]
