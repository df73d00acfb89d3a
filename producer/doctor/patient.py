"""What is examined, and what is found."""

from __future__ import annotations

import importlib.metadata
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from celery import Celery

from jobs.cores import CGROUP
from jobs.ledger import Ledger
from jobs.registry import WorkerInfo
from jobs.settings import Settings

__all__ = ["Finding", "Patient"]


@dataclass(frozen=True)
class Finding:
    """``code`` is stable; ``severity`` is ``error`` or ``warning``; ``remedy`` says what to do."""

    code: str
    severity: str
    what: str
    remedy: str


@dataclass(frozen=True)
class Patient:
    """This machine, its packages and settings, and the Redis and the workers that the settings name.

    ``ledger`` is None where Redis does not answer: what needs it is not examined then.
    """

    settings: Settings
    app: Celery
    ledger: Ledger | None = None
    info: dict[str, Any] = field(default_factory=dict)
    workers: Sequence[WorkerInfo] = ()
    now_s: Callable[[], float] = time.time
    #: Where packages are looked for, and the roots of the two virtual file systems that are read.
    site: Sequence[str] = field(default_factory=lambda: list(sys.path))
    proc: Path = Path("/proc")
    cgroup: Path = CGROUP

    def package(self, name: str) -> importlib.metadata.Distribution | None:
        """An installed package, None where it is not there."""
        return next(iter(importlib.metadata.distributions(name=name, path=list(self.site))), None)
