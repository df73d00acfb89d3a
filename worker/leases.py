"""The lease keeper: prolongs what this process holds for as long as the process lives."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from jobs.ledger import Ledger
from jobs.ticking import Ticking
from worker.metrics import Meter, NoMeter

__all__ = ["LeaseKeeper"]

log = logging.getLogger(__name__)

#: Renewals within one lease: a late one or a lost answer must not cost it.
RENEWALS = 4


class LeaseKeeper(Ticking):
    """Renews the held tokens between :meth:`start` and :meth:`stop`; what is held at the end lapses.

    While Redis is gone the work goes on: the lease decides, and the finish waits for Redis.
    """

    def __init__(
        self,
        ledger: Ledger,
        *,
        lease_s: float,
        meter: Meter | None = None,
        note: Callable[[str], None] = lambda token: None,
    ) -> None:
        self.ledger = ledger
        self.meter = meter or NoMeter()
        self.lease_s = lease_s
        self._note = note
        self._held: set[str] = set()
        self._doubtful: set[str] = set()
        self._lock = threading.Lock()
        super().__init__(self.renew, lease_s / RENEWALS, name="lease-keeper")

    @contextmanager
    def hold(self, token: str) -> Iterator[None]:
        """Renew a token's lease while the block runs; ``note`` is told of it, and of "" at the end."""
        self._note(token)
        with self._lock:
            self._held.add(token)
            self._doubtful.discard(token)  # the same token may have held another chunk before
        try:
            yield
        finally:
            with self._lock:
                self._held.discard(token)
            self._note("")

    def renew(self) -> None:
        """One renewal of all that is held."""
        with self._lock:
            tokens = list(self._held)
        lost = self.ledger.renew(tokens, lease_s=self.lease_s)
        # One that was finished while we asked has no lease any more, and is held for a moment yet.
        surely = [token for token in lost if token in self._doubtful]
        self._doubtful = set(lost)
        self.meter.leases(renewed=len(tokens) - len(lost), lost=len(surely))
        for token in surely:
            log.warning("lost the lease of %s: its results will be dropped", token)
            with self._lock:
                self._held.discard(token)
