"""Micro-batches of single calls: a process that got one takes along others that wait on the same queue.

What is batched is only what would have had to wait: without load there is one call and nothing is gained or lost. Each
call that is taken along is traced by Celery as if it had come by itself, so results, chains, groups and chords work as
ever; and acknowledged when its answer is written.
"""

from __future__ import annotations

import logging
import threading
import time
from dataclasses import dataclass, field
from functools import cache
from typing import Any

from celery import Celery
from celery.app.trace import trace_task_ret
from kombu.connection import Connection

from worker.service import Call, answer_all
from worker.warm import current

__all__ = ["Gatherer", "gatherer"]

log = logging.getLogger(__name__)

#: Seconds between two looks at an empty queue while a longest wait is set.
POLL_S = 0.0005
#: Headers of a message that only Celery's own consumer can obey: it is left to it.
NOT_OURS = ("eta", "expires")


@cache
def gatherer(app: Celery) -> Gatherer:
    """The one of this process: by default it gathers as many calls as its model takes in one batch."""
    warm = current()
    limit = warm.settings.interactive_batch or max(engine.batch_size for engine in warm.engines.values())
    return Gatherer(app, limit, warm.settings.interactive_wait_s)


@dataclass(frozen=True)
class _Taken:
    """A message that was taken along, with its call."""

    message: Any
    call: Call


@dataclass
class Gatherer:
    """Gathers up to ``limit`` calls in one process, waiting up to ``wait_s`` for more. 1 gathers nothing."""

    app: Celery
    limit: int
    wait_s: float = 0.0
    _answers: dict[str, dict[str, Any]] = field(default_factory=dict)
    _local: threading.local = field(default_factory=threading.local)

    def classify(self, task_id: str, queue: str, call: Call) -> dict[str, Any]:
        """The answer to a call; others that wait on its queue are answered with it."""
        known = self._answers.pop(task_id, None)  # we are inside the trace of a call that was taken along
        if known is not None:
            return known
        taken = self._take(queue) if self.limit > 1 and queue else []
        own, *others = answer_all([call, *(one.call for one in taken)])
        for one, answer in zip(taken, others, strict=True):
            self._finish(one, answer)
        return own

    def _take(self, queue: str) -> list[_Taken]:
        taken: list[_Taken] = []
        deadline = time.monotonic() + self.wait_s
        while len(taken) < self.limit - 1:
            message = self._channel().basic_get(queue, no_ack=False)
            if message is None:
                if time.monotonic() >= deadline:
                    break
                time.sleep(POLL_S)
                continue
            call = _call(message)
            if call is None:
                message.requeue()
                break
            taken.append(_Taken(message, call))
        return taken

    def _finish(self, one: _Taken, answer: dict[str, Any]) -> None:
        headers = one.message.headers
        self._answers[headers["id"]] = answer
        request = {**headers, "delivery_info": one.message.delivery_info, **_replies(one.message.properties)}
        try:
            trace_task_ret(
                *(headers["task"], headers["id"], request, one.message.body),
                *(one.message.content_type, one.message.content_encoding),
                app=self.app,
            )
        finally:
            self._answers.pop(headers["id"], None)
        one.message.ack()

    def _channel(self) -> Any:
        """A channel of this thread's own, made when it is first needed and after it was lost."""
        connection: Connection | None = getattr(self._local, "connection", None)
        if connection is None or not connection.connected:
            connection = self._local.connection = self.app.connection_for_read()
        return connection.default_channel


def _call(message: Any) -> Call | None:
    """The call of a message; None where it is not one that can be taken along."""
    headers = message.headers
    if headers.get("task") != "labelmill.classify" or any(headers.get(name) for name in NOT_OURS):
        return None
    args, kwargs, _ = message.decode()
    try:
        return Call(*args, **kwargs)
    except TypeError:  # Celery's trace says it better, to the one who called
        return None


def _replies(properties: Any) -> dict[str, Any]:
    return {name: properties.get(name) for name in ("reply_to", "correlation_id")}
