"""For tests of what is compiled of decoding."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from worker.kernels import Kernel, built, kernel

__all__ = ["compiled"]


def compiled() -> Kernel:
    """The kernel; skips only where there is no compiler for it, or the processor cannot run it."""
    found = kernel()
    if found is None:
        can_run = "avx2" in Path("/proc/cpuinfo").read_text()
        assert not (can_run and (built() or shutil.which("cc"))), "worker/*.c were not built, or are not loaded"
        pytest.skip("no C compiler, or no AVX2")
    return found
