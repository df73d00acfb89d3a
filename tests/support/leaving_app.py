"""The product's own Celery application, told to end at a moment that a signal seldom hits.

    celery -A tests.support.leaving_app worker

``LEAVE_WHEN`` says what the main process has just done with a message: ``taken`` (a pool of processes has put it aside
for one that is free), or ``written`` (to the process, which has not yet said that it has it).
"""

from __future__ import annotations

import os
import signal
from typing import Any

from celery.concurrency.asynpool import AsynPool
from celery.concurrency.base import BasePool

from tasks import app

__all__ = ["app"]


def _leave() -> None:
    os.kill(os.getpid(), signal.SIGTERM)


def _apply_and_leave(self: BasePool, *args: Any, **named: Any) -> Any:
    result = _apply(self, *args, **named)
    _leave()
    return result


def _register_and_leave(self: AsynPool, hub: Any) -> None:
    _register(self, hub)
    write = hub.consolidate_callback

    def write_and_leave(free: list[int]) -> None:
        waiting = len(self.outbound_buffer)
        write(free)
        if len(self.outbound_buffer) < waiting:
            _leave()

    hub.consolidate_callback = write_and_leave


if os.environ["LEAVE_WHEN"] == "written":
    _register = AsynPool.register_with_event_loop
    AsynPool.register_with_event_loop = _register_and_leave
else:
    _apply = BasePool.apply_async
    BasePool.apply_async = _apply_and_leave
