"""How a client waits for many results that lie in Redis: it asks for many at a time, and for what was missing again."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

__all__ = ["MANY", "collect"]

#: Messages sent in one go, and results asked for in one go.
MANY = 500
#: Seconds between two looks at results that are not there yet.
POLL_S = 0.005


def collect(ids: Sequence[str], look: Callable[[Sequence[str]], Sequence[Any]], deadline: float) -> list[Any]:
    """What ``look`` finds for each id, in order; None where there is nothing at ``deadline`` (time.monotonic)."""
    found: dict[str, Any] = {}
    waiting = list(ids)
    while waiting and time.monotonic() < deadline:
        part = waiting[:MANY]
        there = {one: value for one, value in zip(part, look(part), strict=True) if value is not None}
        found |= there
        missing = [one for one in part if one not in there]
        waiting = waiting[MANY:] + missing if not there else missing + waiting[MANY:]
        if not there:
            time.sleep(POLL_S)
    return [found.get(one) for one in ids]
