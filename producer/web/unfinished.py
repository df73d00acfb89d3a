"""Jobs whose request is under way and has no ``Idempotency-Key``: nobody but this request can go on with them.

A gateway that is killed leaves such a job behind without an end. Its sender was never told that it was accepted, so it
is deleted, as after any other failure, when a gateway next makes or lists jobs. Each job under way is marked in Redis.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import cast

from jobs.errors import JobError
from jobs.ledger import Ledger
from jobs.patience import GONE
from producer.lock import LAPSE_S, SendLock

__all__ = ["Unfinished"]

#: Seconds between two looks of one process, and the age from which a job's lock must be held: by then it has lapsed
#: where its gateway is gone.
LOOK_S, GRACE_S = 2.0, 1.5 * LAPSE_S


class Unfinished:
    """The marks of one gateway process; safe for threads."""

    def __init__(self) -> None:
        self._next_look = 0.0

    @contextmanager
    def marked(self, ledger: Ledger, job: str) -> Iterator[None]:
        """Mark a job while the block runs. The mark stays where Redis has gone: then the job is looked at later."""
        ledger.redis.zadd(_marks(ledger), {job: time.time()})
        try:
            yield
        except GONE:
            raise
        except Exception:
            self._unmark(ledger, job)
            raise
        self._unmark(ledger, job)

    def sweep(self, ledger: Ledger) -> None:
        """Delete what was left behind; one round trip where nothing was, none within :data:`LOOK_S` of the last."""
        if time.monotonic() < self._next_look:
            return
        self._next_look = time.monotonic() + LOOK_S
        old = cast("list[bytes]", ledger.redis.zrangebyscore(_marks(ledger), "-inf", time.time() - GRACE_S))
        for job in old:
            self._close(ledger, job.decode())

    def _close(self, ledger: Ledger, job: str) -> None:
        if not SendLock(ledger, job).acquire():
            return  # it is being sent; otherwise the lock lapses by itself
        with suppress(JobError):  # there is no such job any more, and nothing to be done
            ledger.take_over(job, secrets.token_hex(8))  # from now on nobody else can complete it
            if not ledger.status(job).sealed:
                ledger.delete(job)
        self._unmark(ledger, job)

    def _unmark(self, ledger: Ledger, job: str) -> None:
        with suppress(*GONE):  # a mark too many does no harm: the next sweep finds the job complete
            ledger.redis.zrem(_marks(ledger), job)


def _marks(ledger: Ledger) -> str:
    """The set of them, each with the time it was made."""
    return f"{ledger.prefix}web:unfinished"
