"""What ONNX Runtime needs for a GPU: the provider's options, and a run whose two ends stay in the device's memory.

Not measured: no GPU was at hand. :class:`BoundRun` takes any device, and its tests run it on ``cpu``.
"""

from __future__ import annotations

import logging
import threading
from contextlib import redirect_stdout
from dataclasses import dataclass
from functools import cache
from io import StringIO
from typing import Any

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

__all__ = ["BoundRun", "has_cuda", "provider_options", "ready_cuda", "took_cuda"]

log = logging.getLogger(__name__)

CUDA = "CUDAExecutionProvider"
#: Of those that this process can see; CUDA_VISIBLE_DEVICES says which it can.
DEVICE_ID = 0


def has_cuda() -> bool:
    """Whether this onnxruntime was built for CUDA. Whether there is a GPU, only a session shows: :func:`took_cuda`."""
    return CUDA in ort.get_available_providers()


def took_cuda(session: ort.InferenceSession) -> bool:
    """Whether the session computes on the GPU.

    ONNX Runtime leaves a provider that cannot start out of the session without an error, even with its fallback off
    (onnxruntime #17801, #23372).
    """
    return CUDA in session.get_providers()


def ready_cuda(precision: str) -> tuple[str, dict[str, str]]:
    """The provider with its options, its libraries loaded and its own log quiet: an error is one line of ours."""
    _load_libraries()
    ort.set_default_logger_severity(4)
    return CUDA, provider_options(precision)


def provider_options(precision: str) -> dict[str, str]:
    """Options for a GPU that several processes share, and batches of changing size.

    https://onnxruntime.ai/docs/execution-providers/CUDA-ExecutionProvider.html
    """
    return {
        "device_id": str(DEVICE_ID),
        # Powers of two would take up to twice what a process uses, and there are several on the GPU.
        "arena_extend_strategy": "kSameAsRequested",
        # EXHAUSTIVE, the default, tries every algorithm anew for each size of a batch, and the last of a chunk differs.
        "cudnn_conv_algo_search": "HEURISTIC",
        # 0 allows data races (onnxruntime #4829).
        "do_copy_in_default_stream": "1",
        "use_tf32": str(int(precision == "tf32")),
    }


class BoundRun:
    """Runs a session with input and output bound to memory of a device (IO binding); one pair is kept for each thread.

    ``row`` is the shape of one image's output. The answer is a copy: the next run writes into the same memory.
    """

    def __init__(self, session: ort.InferenceSession, row: tuple[int, ...], device: str) -> None:
        self._session = session
        self._row = row
        self._device = device
        self._input = session.get_inputs()[0].name
        self._output = session.get_outputs()[0].name
        self._kept = threading.local()

    def __call__(self, batch: NDArray[Any]) -> NDArray[Any]:
        """``float32[N, *row]`` of ``batch[N, ...]``; raises what ONNX Runtime raises."""
        ends = self._ends(batch)
        ends.input.update_inplace(np.ascontiguousarray(batch))
        binding = self._session.io_binding()
        # bound anew for each run: an input that a node takes on the processor is copied there as it is bound
        binding.bind_ortvalue_input(self._input, ends.input)
        binding.bind_ortvalue_output(self._output, ends.output)
        binding.synchronize_inputs()
        self._session.run_with_iobinding(binding)
        binding.synchronize_outputs()
        return np.array(ends.output.numpy())

    def _ends(self, batch: NDArray[Any]) -> _Ends:
        """Memory for a batch of this shape: the last one's where it fits."""
        kept: _Ends | None = getattr(self._kept, "ends", None)
        if kept is None or kept.shape != batch.shape:
            kept = self._kept.ends = _Ends(
                batch.shape,
                self._room(batch.shape, batch.dtype),
                self._room((len(batch), *self._row), np.dtype(np.float32)),
            )
        return kept

    def _room(self, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Any:
        return ort.OrtValue.ortvalue_from_shape_and_type(shape, dtype, self._device, DEVICE_ID)


@dataclass(frozen=True)
class _Ends:
    shape: tuple[int, ...]
    input: Any
    output: Any


@cache
def _load_libraries() -> None:
    """CUDA and cuDNN from the packages beside onnxruntime-gpu, once in a process; it prints what it misses."""
    said = StringIO()
    with redirect_stdout(said):
        ort.preload_dlls()
    for line in said.getvalue().splitlines():
        log.info("onnxruntime: %s", line)
