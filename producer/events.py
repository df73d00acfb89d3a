"""Events: jobs that changed their state, as Redis publishes them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import orjson

from jobs.ledger import Ledger

__all__ = ["Event", "listen"]


@dataclass(frozen=True)
class Event:
    """A job entered a state: in_progress, cancelling, ended or deleted. ``at_ms`` is Redis's clock."""

    job: str
    state: str
    at_ms: int
    request_counts: dict[str, int]


def listen(ledger: Ledger, *, wait_s: float = 1.0) -> Iterator[Event | None]:
    """Events from now on; None when none came for ``wait_s``.

    Redis keeps none for those who do not listen: who must not miss a job's end asks for its state too.
    """
    with ledger.redis.pubsub(ignore_subscribe_messages=True) as channel:  # type: ignore[no-untyped-call]
        channel.subscribe(f"{ledger.prefix}events")
        while True:
            message = channel.get_message(timeout=wait_s)
            yield None if message is None else Event(**orjson.loads(message["data"]))
