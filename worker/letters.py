"""Letters: messages that were taken along with a call, before Celery has seen them, and what may be done with each.

Celery's own consumer would obey everything that a message can ask for. Here three ways are told apart: a plain call is
answered with many others in one write; one that others wait for (a callback, a chain, a chord) is answered by Celery's
trace; all else is put back for the consumer: a time to begin, an end that has passed, a revoked id, arguments that are
not those of the task, and what was delivered before, which may be what ended its process.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import orjson

from worker.calls import Call
from worker.postbox import Sealed

__all__ = ["TASK", "Letter", "read"]

#: The only task whose calls are taken along.
TASK = "labelmill.classify"
#: Headers that only Celery's consumer, or its trace of a call of its own, can obey.
NOT_OURS = ("eta", "retries", "stamped_headers", "stamps", "redelivered", "compression", "ignore_result")


@dataclass(frozen=True)
class Letter:
    """A call that was taken along. ``is_plain``: nobody waits for it but whoever reads its result."""

    sealed: Sealed
    call: Call
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    is_plain: bool

    @property
    def id(self) -> str:
        """The task's id."""
        return str(self.sealed.headers["id"])

    def request(self) -> dict[str, Any]:
        """What Celery knows of a call while it runs."""
        properties = self.sealed.properties
        replies = {name: properties.get(name) for name in ("reply_to", "correlation_id")}
        return {**self.sealed.headers, "delivery_info": dict(properties.get("delivery_info") or {}), **replies}


def read(sealed: Sealed | None, models: Collection[str], *, is_revoked: Callable[[str], bool]) -> Letter | None:
    """The call of a message to one of ``models``; None where it must be put back."""
    try:
        if sealed is None or not _is_ours(sealed) or is_revoked(sealed.headers["id"]):
            return None
        args, kwargs, embed = orjson.loads(sealed.body)
        call = Call(*args, **kwargs)
        if call.model is not None and call.model not in models:
            return None
        return Letter(sealed, call, tuple(args), kwargs, is_plain=not any(embed.values()))
    except (ValueError, TypeError, AttributeError):  # Celery's trace says it better, to the one who called
        return None


def _is_ours(sealed: Sealed) -> bool:
    headers = sealed.headers
    return (
        headers.get("task") == TASK
        and isinstance(headers.get("id"), str)
        and sealed.content_type == "application/json"
        and not any(headers.get(name) for name in NOT_OURS)
        and not any(headers.get("timelimit") or ())
        and _is_in_time(headers.get("expires"))
    )


def _is_in_time(expires: Any) -> bool:
    if expires is None:
        return True
    try:
        until = datetime.fromisoformat(expires)
    except (TypeError, ValueError):
        return False
    return until.tzinfo is not None and datetime.now(UTC) < until
