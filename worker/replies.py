"""Answers to calls that were taken along: written all at once, in the form in which Celery's result backend has them.

So ``AsyncResult.get``, groups and whoever polls see what they would have seen of any task. Where somebody listens to
Celery's signals in this process, or the backend is none of Redis, each call goes through Celery's trace instead.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import orjson
from celery import Celery, signals, states
from celery.app.task import Context
from celery.app.trace import trace_task_ret

from jobs.answers import Backend
from worker.letters import TASK, Letter

__all__ = ["Replies"]

#: Who listens to one of these sees every task one by one.
LISTENED = (signals.task_prerun, signals.task_postrun, signals.task_success)


class Replies:
    """Writes answers into the result backend of an app."""

    def __init__(self, app: Celery) -> None:
        self.app = app

    def write_all(self, letters: Sequence[Letter], answers: Sequence[dict[str, Any]]) -> None:
        """Store the answers to plain calls in one round trip. Raises what Redis raises, with nothing stored."""
        if not letters:
            return
        backend = self.app.backend
        values = [_encoded(backend, *pair) for pair in zip(letters, answers, strict=True)]
        keys = [backend.get_key_for_task(letter.id) for letter in letters]
        backend.write_all(keys, values)

    def trace(self, letter: Letter) -> None:
        """Let Celery run a call as if it had come by itself."""
        sealed = letter.sealed
        message = sealed.body, sealed.content_type, sealed.content_encoding
        trace_task_ret(TASK, letter.id, letter.request(), *message, app=self.app)

    def are_watched(self) -> bool:
        """Whether every call must go through Celery's trace."""
        backend = self.app.backend
        is_ours = isinstance(backend, Backend) and backend.serializer == "json" and not backend.compression
        watched = any(signal.receivers for signal in LISTENED) or self.app.tasks[TASK].track_started
        return bool(watched or not is_ours)


def _encoded(backend: Any, letter: Letter, answer: dict[str, Any]) -> bytes:
    known = {**letter.sealed.headers, "args": letter.args, "kwargs": letter.kwargs, "headers": {}}
    meta = backend._get_result_meta(result=answer, state=states.SUCCESS, traceback=None, request=Context(known))
    return orjson.dumps({**meta, "task_id": letter.id})
