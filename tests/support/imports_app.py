"""The product's own Celery application, whose log says what each task imported: ``imported: a.module another``.

And of how many installed packages it read what they are: ``looked at: 0``.
"""

from __future__ import annotations

import logging
import sys
from typing import Any

from celery.signals import task_postrun, task_prerun

from tasks import app

__all__ = ["app"]

log = logging.getLogger(__name__)
_before: set[str] = set()
_read: list[str] = []


def _see(event: str, args: tuple[Any, ...]) -> None:
    if event == "open" and ".dist-info" in str(args[0]):
        _read.append(str(args[0]))


sys.addaudithook(_see)


@task_prerun.connect  # type: ignore[untyped-decorator]
def _begin(**_: Any) -> None:
    _before.update(sys.modules)
    _read.clear()


@task_postrun.connect  # type: ignore[untyped-decorator]
def _end(**_: Any) -> None:
    log.info("imported: %s. looked at: %d.", " ".join(sorted(set(sys.modules) - _before)), len(_read))
