"""The reconciler: takes back what silent workers held, and rings again for tickets that got lost.

It runs in every worker and in every waiting producer; one at a time is elected by a key in Redis. All tickets of a
lane are equal (:mod:`jobs.tickets`), so what got lost is a matter of counting: chunks that wait in the ledger, as far
as they need tickets, less tickets that wait in the queue. A ticket in somebody's hands looks lost for a moment, so a
difference counts only when it was there a sweep ago too; rung once too often, it costs nothing.
"""

from __future__ import annotations

import logging
import uuid
from collections.abc import Mapping

from jobs.ledger import Ledger
from jobs.tickets import ENOUGH, Bell
from jobs.ticking import Ticking

__all__ = ["Reconciler"]

log = logging.getLogger(__name__)

#: Shortest time that the elected one stays so without a sign of life, in seconds.
TERM_S = 1.0


class Reconciler(Ticking):
    """Sweeps in a thread of its own between :meth:`start` and :meth:`stop`."""

    def __init__(self, ledger: Ledger, bell: Bell, *, sweep_s: float = 0.5) -> None:
        self.ledger = ledger
        self.bell = bell
        self.sweep_s = sweep_s
        self._name = uuid.uuid4().hex
        self._missing: dict[str, int] = {}
        super().__init__(self._sweep_if_elected, sweep_s, name="reconciler")

    def sweep(self) -> int:
        """One sweep, elected or not; returns how many tickets it rang."""
        return self._ring(*self.ledger.sweep())

    def _sweep_if_elected(self) -> None:
        found = self.ledger.sweep_if_elected(self._name, term_s=max(TERM_S, 3 * self.sweep_s))
        if found is not None:
            self._ring(*found)

    def _ring(self, recovered: int, queued: Mapping[str, int]) -> int:
        """Say what was taken back, and ring for what waits without a ticket; returns how many were rung."""
        if recovered:
            log.warning("took back %d chunks of silent workers", recovered)
        missing: dict[str, int] = {}
        rung = 0
        for lane, chunks in queued.items():
            if not chunks:  # of a job that was cancelled or expired; a chunk that came just now is missed, and rung
                self.bell.clear(lane)
                continue
            missing[lane] = now = min(chunks, ENOUGH) - self.bell.waiting(lane)
            lost = now if recovered else min(now, self._missing.get(lane, 0))
            if lost > 0:
                self.bell.ring(lane, lost)
                rung += lost
        self._missing = missing
        return rung
