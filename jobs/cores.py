"""The cores that a process may use."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

__all__ = ["CGROUP", "usable_cores"]

CGROUP = Path("/sys/fs/cgroup")
#: Which group this process is in, as seen from where the groups are mounted.
MEMBERSHIP = Path("/proc/self/cgroup")


def usable_cores(cgroup: Path = CGROUP, membership: Path = MEMBERSHIP) -> float:
    """The least of this process's affinity and the quotas of its cgroup and those around it (version 1 or 2)."""
    return min([float(len(os.sched_getaffinity(0))), *_quotas(cgroup, _read(membership))])


def _quotas(cgroup: Path, membership: str) -> Iterator[float]:
    for line in ("0::/", "0:cpu:/", *membership.splitlines()):
        _, controllers, path = line.split(":", 2)
        if controllers and "cpu" not in controllers.split(","):
            continue
        inner = PurePosixPath(path.lstrip("/"))
        if ".." in inner.parts:  # a group outside of what we see
            continue
        for group in (inner, *inner.parents):
            quota = _quota_of(cgroup / "cpu" / group) if controllers else _read(cgroup / group / "cpu.max").split()
            if len(quota) == 2 and quota[0].isdigit() and int(quota[1]):
                yield int(quota[0]) / int(quota[1])


def _quota_of(group: Path) -> list[str]:
    """Of version 1: microseconds in each period, and those of a period."""
    return [_read(group / "cpu.cfs_quota_us") or "max", _read(group / "cpu.cfs_period_us") or "100000"]


def _read(path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError:  # no such controller here
        return ""
