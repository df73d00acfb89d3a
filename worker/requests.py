"""What a worker's main process does when one of its processes dies with a chunk."""

from __future__ import annotations

import os
import threading
from functools import partial
from typing import Any, cast

import psutil
from billiard.exceptions import TimeLimitExceeded, WorkerLostError
from celery.worker.request import Request

from jobs.errors import CrashedWorkerError, LabelmillError, TimeLimitError
from jobs.tickets import token_of

__all__ = ["TicketRequest", "process_of", "settle_lost"]

#: The largest process id of Linux, proc(5).
MOST_PID = 1 << 22
#: Seconds that Celery has to notice by itself that the process of a task died.
NOTICE_S = 1.0


def process_of(request: Any) -> int:
    """The process that has a request in hand. Pools of greenlets have but one, and call something else a process id."""
    pid = request.worker_pid
    return pid if pid is not None and pid <= MOST_PID else os.getpid()


class TicketRequest(Request):  # type: ignore[misc]
    """A ticket in hand. The token of its lease is made of what the main process, too, knows of it."""

    def on_timeout(self, soft: bool, timeout: float) -> None:
        """The hard time limit ended the process."""
        super().on_timeout(soft, timeout)
        if not soft:  # one that died unseen passes its time, too
            self._report(TimeLimitError() if psutil.pid_exists(process_of(self)) else CrashedWorkerError())

    def on_failure(self, exc_info: Any, send_failed_event: bool = True, return_ok: bool = False) -> Any:
        """The task failed; where that is because its process died, the ledger need not wait for the lease."""
        if isinstance(exc_info.exception, WorkerLostError) and not isinstance(exc_info.exception, TimeLimitExceeded):
            self._report(CrashedWorkerError())
        return super().on_failure(exc_info, send_failed_event=send_failed_event, return_ok=return_ok)

    def _report(self, error: LabelmillError) -> None:
        from worker import lifecycle

        lifecycle.report_crash(token_of(self.id, process_of(self)), error)


def settle_lost(worker: Any, token: str) -> None:
    """See that Celery, too, knows that the process of a ticket died. ``worker`` is Celery's.

    It misses that where the process dies before the pool has read which process took the task. The request would then
    keep its place in the pool until its time limit.
    """

    def settle() -> None:
        pool = worker.pool._pool
        for job in tuple(pool._cache.values()):
            if not job.ready() and token == token_of(job.correlation_id, _last_of(pool, job)):
                pool.mark_as_worker_lost(job, 0)

    timer = threading.Timer(NOTICE_S, partial(worker.consumer.call_soon, settle))
    timer.daemon = True
    timer.start()


def _last_of(pool: Any, job: Any) -> int | None:
    """The process that had a job last, as far as the pool knows; None where the job waits for one."""
    if job._accepted:
        return cast("int | None", job._worker_pid)
    return None if job in getattr(pool, "outbound_buffer", ()) else getattr(job._write_to, "pid", None)
