"""The machine that figures are of."""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path

__all__ = ["machine"]

#: What decides how fast a model is, as the kernel calls it: the same name may stand for processors with and without.
VECTORS = ("avx2", "avx512f", "avx_vnni", "avx512_vnni", "amx_int8")


def machine(packages: Sequence[str]) -> dict[str, str | int]:
    """Its processor and cores, the date, and the versions of Python and of some packages."""
    described = Path("/proc/cpuinfo").read_text().splitlines()
    names = (line.partition(":")[2].strip() for line in described if line.startswith("model name"))
    flags = next((line.split() for line in described if line.startswith("flags")), [])
    return {
        "processor": next(names, "") or platform.machine(),
        "vectors": " ".join(name for name in VECTORS if name in flags),
        "cores": len(os.sched_getaffinity(0)),
        "date": time.strftime("%Y-%m-%d"),
        "python": platform.python_version(),
        **{name: version(name) for name in packages},
    }
