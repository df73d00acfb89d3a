"""What a worker's main process does when one of its processes dies with a chunk."""

from __future__ import annotations

import threading
from functools import partial
from typing import Any

from billiard.exceptions import TimeLimitExceeded, WorkerLostError
from celery.worker.request import Request

from jobs.errors import CrashedWorkerError, LabelmillError, TimeLimitError

__all__ = ["TicketRequest", "settle_lost"]

#: Seconds that Celery has to notice by itself that the process of a task died.
NOTICE_S = 1.0


class TicketRequest(Request):  # type: ignore[misc]
    """A ticket in hand. The token of its lease is its message's id, so that the main process knows it too."""

    def on_timeout(self, soft: bool, timeout: float) -> None:
        """The hard time limit ended the process."""
        super().on_timeout(soft, timeout)
        if not soft:
            self._report(TimeLimitError())

    def on_failure(self, exc_info: Any, send_failed_event: bool = True, return_ok: bool = False) -> Any:
        """The task failed; where that is because its process died, the ledger need not wait for the lease."""
        if isinstance(exc_info.exception, WorkerLostError) and not isinstance(exc_info.exception, TimeLimitExceeded):
            self._report(CrashedWorkerError())
        return super().on_failure(exc_info, send_failed_event=send_failed_event, return_ok=return_ok)

    def _report(self, error: LabelmillError) -> None:
        from worker import lifecycle

        lifecycle.report_crash(self.id, error)


def settle_lost(worker: Any, token: str) -> None:
    """See that Celery, too, knows that the process of a ticket died. ``worker`` is Celery's.

    It misses that where the process dies before the pool has read which process took the task. The request would then
    keep its place in the pool until its time limit.
    """

    def settle() -> None:
        pool = worker.pool._pool
        for job in tuple(pool._cache.values()):
            if getattr(job, "correlation_id", None) == token and not job.ready():
                pool.mark_as_worker_lost(job, 0)

    timer = threading.Timer(NOTICE_S, partial(worker.consumer.call_soon, settle))
    timer.daemon = True
    timer.start()
