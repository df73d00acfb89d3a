"""TorchScript files. The only runtime but torch.export's that imports torch."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from jobs.errors import FixedBatchError, ModelCorruptError, ModelRunError, ModelUnsupportedError
from worker.models import heap
from worker.models.card import ModelCard
from worker.models.device import first_that_is_right, on_device
from worker.models.runtime import Images, Scores
from worker.models.tensors import check_scores, empty_scores, to_input, to_scores
from worker.models.torch_ways import EXACT, Way, exact_float32, has_cuda, on_its_way, ways_on

__all__ = ["TorchRuntime", "load_torchscript", "quiet_jit"]


class quiet_jit(warnings.catch_warnings):
    """Drop torch.jit's notes that it is deprecated: the operator chose this runtime knowingly."""

    def __enter__(self) -> Any:
        log = super().__enter__()
        for category in (DeprecationWarning, FutureWarning):
            warnings.filterwarnings("ignore", message=r".*torch\.jit\.", category=category)
        return log


class TorchRuntime:
    """One module that maps a batch to an output; safe to share between threads under ``inference_mode``."""

    decodes = True

    def __init__(self, module: Any, card: ModelCard, digest: str, device: str = "cpu", way: Way = EXACT) -> None:
        self.card = card
        self.digest = digest
        self.device = device
        self.precision = way.precision
        self._module = module
        self._way = way

    def predict(self, images: Images) -> Scores:
        """Final scores: ``uint8[N, H, W, 3]`` in, ``float32[N, C]`` out; no images give no rows."""
        if not len(images):
            return empty_scores(self.card)
        try:
            return to_scores(self.run(images), self.card)
        except Exception as exc:
            raise ModelRunError(f"{self.card.name}: {last_line(exc)}") from exc

    def shrink(self) -> None:
        """Give back what the heap keeps; what torch keeps of a GPU's memory stays."""
        heap.trim()

    def run(self, images: Images) -> Any:
        """The module's output as it is, in numpy; raises what torch raises."""
        batch = torch.from_numpy(np.ascontiguousarray(to_input(images, self.card)))
        with torch.inference_mode(), self._way.arithmetic(self.device):
            return self._module(on_its_way(batch, self.device)).cpu().numpy()


def load_torchscript(
    path: Path, card: ModelCard, digest: str, *, threads: int = 1, device: str = "cpu"
) -> TorchRuntime:
    """The frozen module, checked against its card.

    ``threads`` is set for the whole process: torch has one pool.
    Raises a :class:`~jobs.errors.ModelFileError` of the class that fits.
    """
    torch.set_num_threads(threads)
    return load_on(device, path, card, digest, _module)


def load_on(
    device: str, path: Path, card: ModelCard, digest: str, module: Callable[[Path, str, Way], Any]
) -> TorchRuntime:
    """The runtime on a device, in the fastest way that the golden sample allows, checked against its card.

    ``module(path, device, way)`` makes the module for one way. The process keeps what it frees from now on.
    """
    heap.keep_freed()
    needs = "install a torch that is built for CUDA, beside NVIDIA's driver"
    return on_device(device, partial(_load, path, card, digest, module), has_cuda=has_cuda, needs=needs)


def _load(
    path: Path, card: ModelCard, digest: str, module: Callable[[Path, str, Way], Any], device: str
) -> TorchRuntime:
    if device != "cpu":
        exact_float32()

    def make(way: Way) -> TorchRuntime:
        return TorchRuntime(module(path, device, way), card, digest, device, way)

    runtime = first_that_is_right(ways_on(device), make, card)
    check_runtime(runtime, path)
    return runtime


def _module(path: Path, device: str, way: Way) -> Any:
    return freeze(way.laid_out(_open(path, device)), path)


def check_runtime(runtime: TorchRuntime, path: Path) -> None:
    """Run one and two black images: the output must be one row of scores an image, in any batch."""
    for batch in (1, 2):
        black = np.zeros((batch, *runtime.card.preprocessing.size, 3), np.uint8)
        try:
            output = runtime.run(black)
        except Exception as exc:
            if batch == 1:
                raise ModelUnsupportedError(f"{path}: it fails on a black image: {last_line(exc)}") from exc
            raise FixedBatchError(f"{path}: it takes one image but not {batch}: {last_line(exc)}") from exc
        check_scores(output, runtime.card, batch)


def freeze(module: Any, path: Path) -> Any:
    """The module in eval mode with its weights made constants."""
    with quiet_jit():
        try:
            return torch.jit.freeze(module.eval())
        except Exception as exc:
            raise ModelUnsupportedError(f"{path}: it cannot be frozen: {last_line(exc)}") from exc


def last_line(exc: Exception) -> str:
    """The line of torch's message that says what went wrong: the last one, after the trace of the graph."""
    lines = [line.strip() for line in str(exc).splitlines() if line.strip(" ~^<-\t")]
    return lines[-1] if lines else type(exc).__name__


def _open(path: Path, device: str) -> Any:
    with quiet_jit():
        try:
            return torch.jit.load(str(path), map_location=device)
        except Exception as exc:
            if "CUDA" in str(exc):  # of a GPU that is full or broken: the file may be whole
                raise ModelUnsupportedError(
                    f"the device {device!r} does not take the model: {str(exc).partition(chr(10))[0]}"
                ) from exc
            if "Unknown builtin op" in str(exc) or "version" in str(exc):
                reason = str(exc).strip().partition("\n")[0]
                raise ModelUnsupportedError(f"{path}: torch {torch.__version__} cannot run it: {reason}") from exc
            raise ModelCorruptError(f"{path}: no whole TorchScript file; export it or copy it again") from exc
