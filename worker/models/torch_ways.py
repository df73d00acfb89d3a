"""How a torch module may compute: in which arithmetic, with its pixels in which order, from which memory.

The ways for ``cuda`` are not measured: no GPU was at hand. The device is a parameter throughout, and the tests take
them on ``cpu``.
"""

from __future__ import annotations

import warnings
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch

__all__ = ["EXACT", "GPU_WAYS", "Way", "exact_float32", "has_cuda", "on_its_way", "ways_on"]


@dataclass(frozen=True)
class Way:
    """``dtype``: the type of convolutions and products, None for the file's own; autocast keeps softmax in float32.

    ``channels_last``: weights and what lies between layers as N, H, W, C, which a GPU's tensor cores take as it is.
    """

    dtype: torch.dtype | None = None
    channels_last: bool = False

    @property
    def precision(self) -> str:
        """The arithmetic's name."""
        return "float32" if self.dtype is None else str(self.dtype).removeprefix("torch.")

    def laid_out(self, module: Any) -> Any:
        """The module with its weights in this order."""
        return module.to(memory_format=torch.channels_last) if self.channels_last else module

    def arithmetic(self, device: str) -> AbstractContextManager[Any]:
        """What a run happens in."""
        return nullcontext() if self.dtype is None else torch.autocast(device, dtype=self.dtype)


#: As the file has it.
EXACT = Way()
#: For a GPU, the fastest first; the last one serves files that nothing but their own order of pixels suits.
GPU_WAYS = (Way(torch.float16, channels_last=True), Way(channels_last=True), EXACT)


def ways_on(device: str) -> tuple[Way, ...]:
    """The ways to try on a device, the fastest first; the last is exact."""
    return (EXACT,) if device == "cpu" else GPU_WAYS


def has_cuda() -> bool:
    """Whether this torch can use a GPU. Touches CUDA: only after a pool has forked."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of a driver that is too old, or not there: "no" says it
        return torch.cuda.is_available()


def exact_float32() -> None:
    """float32 means float32 in this process: TF32, cuDNN's default, has float16's ten bits."""
    torch.backends.cudnn.allow_tf32 = False
    torch.backends.cuda.matmul.allow_tf32 = False


def on_its_way(batch: torch.Tensor, device: str) -> torch.Tensor:
    """The batch on the device; pinned memory lets the GPU fetch it while the processor queues the model's kernels.

    The pinned copy is torch's own and is not used again before the GPU has read it.
    """
    return batch if device == "cpu" else batch.pin_memory().to(device, non_blocking=True)
