"""The machine that the workers share, as far as it can be seen from here."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from pathlib import Path

from jobs.cores import usable_cores
from jobs.registry import WorkerInfo
from producer.doctor.patient import Finding, Patient

__all__ = ["roots_unreadable", "too_many_threads", "torch_before_fork"]

#: Variables that say how many threads one process computes with.
THREADS = ("ORT_INTRA_OP_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS")


def too_many_threads(patient: Patient) -> Iterator[Finding]:
    """More computing threads than cores: they wait for each other."""
    have = usable_cores(patient.cgroup)
    processes = sum(worker.processes for worker in _local(patient))
    threads = patient.settings.threads or 1
    for name in THREADS:
        wanted = os.environ.get(name, "")
        if wanted.isdigit() and int(wanted) > have:
            yield Finding(
                "too_many_threads",
                "warning",
                f"{name}={wanted}, and this machine (or its quota) has {have:g} cores.",
                f"Unset {name}: a worker runs one process a core with one thread each.",
            )
    if processes > have or max(processes, 1) * threads > max(have, 1):
        each = f" with {threads} threads each (LABELMILL_THREADS)" if threads > 1 else ""
        yield Finding(
            "too_many_threads",
            "warning",
            f"Workers of this machine have {processes} processes{each}, and it (or its quota) has {have:g} cores.",
            "Lower --concurrency or LABELMILL_THREADS, or stop a worker.",
        )


def torch_before_fork(patient: Patient) -> Iterator[Finding]:
    """torch that ran in the main process hangs the processes that are forked off it."""
    for worker in _local(patient):
        maps = _read(patient.proc / str(worker.pid) / "maps")
        children = _read(patient.proc / str(worker.pid) / "task" / str(worker.pid) / "children")
        if "libtorch" in maps and children:
            yield Finding(
                "torch_before_fork",
                "error",
                f"The main process {worker.pid} of {worker.node} has torch loaded and forks: its pool may hang.",
                "Import torch only within the pool's processes (as Labelmill does), or start with --pool=solo.",
            )


def roots_unreadable(patient: Patient) -> Iterator[Finding]:
    """Folders that workers are to read and this user cannot."""
    for root in patient.settings.unreadable_roots:
        why = "cannot be read by this user" if os.path.isdir(root) else "is no folder"
        yield Finding(
            "roots_unreadable",
            "error",
            f"{root} of LABELMILL_FILE_ROOTS {why}: every image in it would fail.",
            "Mount it, mend its permissions, or take it out of LABELMILL_FILE_ROOTS.",
        )


def _local(patient: Patient) -> list[WorkerInfo]:
    return [worker for worker in patient.workers if worker.host == socket.gethostname()]


def _read(path: Path) -> str:
    """A file's text; empty where it is not there or not ours to read."""
    try:
        return path.read_text().strip()
    except OSError:
        return ""
