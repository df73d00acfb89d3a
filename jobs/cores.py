"""The cores that a process may use."""

from __future__ import annotations

import os
from pathlib import Path

__all__ = ["CGROUP", "usable_cores"]

CGROUP = Path("/sys/fs/cgroup")


def usable_cores(cgroup: Path = CGROUP) -> float:
    """The smaller of this process's affinity and its cgroup's quota (version 1 or 2)."""
    usable = float(len(os.sched_getaffinity(0)))
    quota = _read(cgroup / "cpu.max").split() or [
        _read(cgroup / "cpu" / "cpu.cfs_quota_us") or "max",
        _read(cgroup / "cpu" / "cpu.cfs_period_us") or "100000",
    ]
    if len(quota) == 2 and quota[0].isdigit() and int(quota[1]):
        return min(usable, int(quota[0]) / int(quota[1]))
    return usable


def _read(path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError:  # no such controller here
        return ""
