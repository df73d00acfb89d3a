"""Chunks that take too long, though nothing is wrong with them: the rest of their items is put off.

A host that answers late costs the longest wait for each of its images; together they may pass the time limit of their
chunk, which would then be taken for one that kills its worker. So a chunk that has used its share of the time records
what is done, and the rest of it waits again.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace

import orjson

from jobs.errors import ItemError
from jobs.items import decode_outcomes
from worker.engine import Budget, ChunkResult

__all__ = ["InTime", "PostponedError", "split_postponed"]


class PostponedError(ItemError):
    """Its chunk has used its time: it waits again. Never recorded."""

    code = "postponed"
    transient = True


class InTime(Budget):
    """:meth:`fetch` for ``budget_s``; then :class:`PostponedError`, but never for the first item.

    Not when it is asked for again, either: a chunk that gets nowhere would be put off for ever. What was fetched and
    is not predicted is put off ``more_s`` later, and what is not even decoded half of that later, or half of that after
    the last of it came.
    """

    def __init__(self, fetch: Callable[[str], bytes], budget_s: float, more_s: float) -> None:
        self._fetch = fetch
        self._until = time.monotonic() + budget_s
        self._predicted_until = self._until + more_s
        self._decode_s = more_s / 2
        self._fetched = self._until
        self._first: str | None = None

    def fetch(self, ref: str) -> bytes:
        """The same, in time."""
        self._first = self._first or ref
        if ref != self._first and time.monotonic() >= self._until:
            raise PostponedError()
        try:
            return self._fetch(ref)
        finally:
            self._fetched = time.monotonic()

    def late_to_decode(self) -> PostponedError | None:
        """See :class:`~worker.engine.Budget`."""
        return PostponedError() if time.monotonic() >= max(self._until, self._fetched) + self._decode_s else None

    def late_to_predict(self) -> PostponedError | None:
        """See :class:`~worker.engine.Budget`."""
        return PostponedError() if time.monotonic() >= self._predicted_until else None


def split_postponed(done: ChunkResult) -> tuple[ChunkResult, list[int]]:
    """What was done, and the positions of the items that were put off."""
    if not done.failed or PostponedError.code.encode() not in done.lines:
        return done, []
    outcomes = list(decode_outcomes(done.lines))
    postponed = [i for i, outcome in enumerate(outcomes) if outcome[0] == PostponedError.code]
    kept = [orjson.dumps(outcome) for outcome in outcomes if outcome[0] != PostponedError.code]
    return replace(done, lines=b"\n".join(kept), failed=done.failed - len(postponed)), postponed
