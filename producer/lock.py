"""One producer at a time sends a job: the others wait until it has ended, or has been silent for a while."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from redis.exceptions import LockError
from redis.lock import Lock

from jobs.ledger import Ledger
from jobs.patience import GONE

__all__ = ["SendLock"]

#: Seconds after which a silent producer has lost the lock; it is renewed several times within.
LAPSE_S = 4.0
RENEWALS = 4


class SendLock:
    """The lock of one job. It only keeps producers from waste: that two never add to one job is the ledger's work."""

    def __init__(self, ledger: Ledger, job: str) -> None:
        name = ledger.key(job, "producer")
        self._lock = Lock(ledger.redis, name, timeout=LAPSE_S, blocking=False, thread_local=False)

    def acquire(self) -> bool:
        """Take it; False where somebody else has it. One round trip."""
        return bool(self._lock.acquire())

    @contextmanager
    def held(self) -> Iterator[None]:
        """Keep what was acquired while the block runs, and give it back."""
        done = threading.Event()
        renewal = threading.Thread(target=self._renew, args=(done,), name="send-lock", daemon=True)
        renewal.start()
        try:
            yield
        finally:
            done.set()
            renewal.join()
            self._release()

    def _renew(self, done: threading.Event) -> None:
        while not done.wait(LAPSE_S / RENEWALS):
            try:
                if not self._lock.owned():
                    self._lock.acquire()  # it lapsed while Redis or we were gone; whoever has it now, keeps it
                else:
                    self._lock.reacquire()
            except (LockError, *GONE):
                continue  # the ledger lets only the last producer write

    def _release(self) -> None:
        try:
            self._lock.release()
        except (LockError, *GONE):
            return  # it lapses
