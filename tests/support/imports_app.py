"""The product's own Celery application, whose log says what each task imported: ``imported: a.module another``."""

from __future__ import annotations

import logging
import sys
from typing import Any

from celery.signals import task_postrun, task_prerun

from tasks import app

__all__ = ["app"]

log = logging.getLogger(__name__)
_before: set[str] = set()


@task_prerun.connect  # type: ignore[untyped-decorator]
def _begin(**_: Any) -> None:
    _before.update(sys.modules)


@task_postrun.connect  # type: ignore[untyped-decorator]
def _end(**_: Any) -> None:
    log.info("imported: %s.", " ".join(sorted(set(sys.modules) - _before)))
