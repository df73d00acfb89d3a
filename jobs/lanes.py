"""Lanes: the queues of a model, and the order in which a worker serves them.

Each model has two queues, ``<model>.interactive`` and ``<model>.bulk``. A job that pins a digest has a bulk queue
of its own, ``<model>@<digest>.bulk``, which only workers of that digest serve.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from functools import cache
from typing import Any

from jobs.errors import UsageError

__all__ = ["BULK_SHARE", "TURN_S", "LaneCycle", "bulk", "check_model_name", "interactive", "route", "served_by"]

#: After this many interactive messages in a row, bulk goes first once: bulk is never starved.
BULK_SHARE = 8
#: Seconds that a ticket's turn lasts at most, but where it fetches ahead. It ends with the chunk that it is at, and
#: sooner where something waits on another queue of the worker, or where the worker is asked to end.
TURN_S = 5.0

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
#: Hexadecimal digits of a digest in a queue's name.
_DIGEST_CHARS = 16


def check_model_name(name: str) -> str:
    """The name; raises :class:`UsageError` where it cannot be part of a queue's name."""
    if not _NAME.fullmatch(name):
        raise UsageError(f"model name {name[:80]!a} must be of letters, digits, '.', '_' and '-', and start with one")
    return name


def interactive(model: str) -> str:
    """The queue of single requests."""
    return f"{check_model_name(model)}.interactive"


def bulk(model: str, digest: str = "") -> str:
    """The queue of bulk tickets; with ``digest`` (``sha256:...``) the one of that very file."""
    pinned = f"@{digest.removeprefix('sha256:')[:_DIGEST_CHARS]}" if digest else ""
    return f"{check_model_name(model)}{pinned}.bulk"


def served_by(model: str, digest: str) -> list[str]:
    """All queues that a worker with this model file serves, interactive first."""
    return [interactive(model), bulk(model), bulk(model, digest)]


def route(name: str, args: Any, kwargs: Any, options: Any, task: Any = None, **_: Any) -> dict[str, str] | None:
    """Celery's router: a single image goes to its model's interactive queue. Tickets name their lane themselves."""
    if name == "labelmill.classify":
        model = (kwargs or {}).get("model") or _default_model(os.environ.get("LABELMILL_MODEL", ""))
        return {"queue": interactive(model)}
    return None


@cache
def _default_model(setting: str) -> str:
    from jobs.settings import Settings

    return Settings.from_env({"LABELMILL_MODEL": setting}).model_name


class LaneCycle:
    """kombu's ``queue_order_strategy``: interactive queues first, bulk guaranteed its share.

    kombu asks for the order before each fetch (``consume``) and says from which queue a message came (``rotate``).
    Queues of one kind take turns.
    """

    def __init__(self, it: Iterable[str] | None = None) -> None:
        self.items: list[str] = list(it or ())
        self._in_a_row = 0

    def update(self, it: Iterable[str]) -> None:
        """Take the queues that are consumed from now on."""
        names = set(it)
        self.items = [n for n in self.items if n in names] + sorted(names.difference(self.items))

    def consume(self, n: int) -> list[str]:
        """The ``n`` queues to ask, in this order."""
        bulk_first = self._in_a_row >= BULK_SHARE
        return sorted(self.items, key=lambda name: name.endswith(".interactive") == bulk_first)[:n]

    def rotate(self, last_used: str) -> str:
        """A message came from ``last_used``."""
        self._in_a_row = self._in_a_row + 1 if last_used.endswith(".interactive") else 0
        if last_used in self.items:
            self.items.remove(last_used)
            self.items.append(last_used)
        return last_used
