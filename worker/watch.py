"""What a worker's main process watches of itself: does it hear, is its memory within bounds, do chunks end in time.

**Deaf** is a worker that is idle while tickets wait on its lanes for ``deaf_s``: its consumer lost its connection and
nobody told it. It says DEAF, and its consumer begins again with a new connection; where that does not help within the
same time, the whole worker begins again.

Pools of processes have Celery's own limits of memory and time (``celeryconfig.py``). Pools of threads have none: there
the main process drains and begins again when it is past its memory limit, and when a chunk is past its time, for a
thread cannot be killed: that chunk is reported, the others are given back.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from typing import Any

import psutil
from celery.concurrency.prefork import TaskPool as PreforkPool
from celery.worker import state as worker_state

from jobs.lanes import TURN_S
from jobs.patience import GONE
from jobs.settings import Settings
from jobs.tickets import Bell
from worker.drain import Drain
from worker.node import Node, State

__all__ = ["Hearing", "Watch"]

log = logging.getLogger(__name__)

#: Seconds between two looks; never more than a quarter of what is waited for.
LOOK_S = 1.0
#: Seconds that the main thread may take to report a chunk past its time.
REPORT_S = 5.0


class Hearing:
    """Tells for how long a worker has been idle while tickets waited. ``now``: seconds of a clock that only grows."""

    def __init__(self) -> None:
        self._since: float | None = None
        self._taken = -1

    def look(self, *, busy: bool, taken: int, waiting: Callable[[], bool], now: float) -> float | None:
        """Seconds of deafness so far; None where it hears.

        ``taken`` counts the messages ever taken; ``waiting`` is asked only where that does not say enough.
        """
        if busy or taken != self._taken or not waiting():
            self._since, self._taken = None, taken
            return None
        if self._since is None:
            self._since = now
        return now - self._since

    def forget(self) -> None:
        """Begin again to count."""
        self._since = None


class Watch:
    """Looks at this worker in a thread of its own, for as long as it lives. ``worker`` is Celery's."""

    def __init__(self, node: Node, drain: Drain, settings: Settings, bell: Bell, worker: Any) -> None:
        self.node = node
        self.drain = drain
        self.settings = settings
        self.bell = bell
        self.worker = worker
        self._hearing = Hearing()
        self._is_prefork = issubclass(worker.pool_cls, PreforkPool)
        self._me = psutil.Process()

    def start(self) -> None:
        """Begin to look."""
        threading.Thread(target=self._run, name="watch", daemon=True).start()

    def _run(self) -> None:
        every = min(LOOK_S, self.settings.deaf_s / 4, self.settings.chunk_time_limit_s / 4)
        while True:
            time.sleep(every)
            try:
                self._look_at_memory()
                self._look_at_time()
                self._listen()
            except GONE:
                self._hearing.forget()  # whoever cannot reach Redis is not deaf; others say that it is gone
            except Exception:  # without this thread nobody would look at memory and time
                log.exception("the watch could not look")

    # -- memory -----------------------------------------------------------------------------------

    def _look_at_memory(self) -> None:
        limit = self.settings.memory_limit
        if limit and (used := self._me.memory_info().rss) > limit:
            self.drain.replace(f"{used >> 20} MiB in use, {limit >> 20} MiB allowed")

    # -- time -------------------------------------------------------------------------------------

    def _look_at_time(self) -> None:
        """Celery ends a process that is past its time, but no thread."""
        if self._is_prefork:
            return
        limit = self.settings.chunk_time_limit_s
        begun = time.time() - limit - TURN_S  # a ticket may have had other chunks before
        late = [r for r in tuple(worker_state.active_requests) if r.time_start and r.time_start < begun]
        if late:
            self.drain.slots.close_intake()  # or another thread takes up what is given back now, and ends with it
            self._report(late, limit)
            self.drain.end_hard(f"{len(late)} past {limit:g} s, in a thread that cannot be ended", again=True)

    def _report(self, late: list[Any], limit: float) -> None:
        """Celery's own way to say that a time limit was passed: by the main thread, where that is free."""
        done = threading.Event()

        def say() -> None:
            for request in late:
                request.on_timeout(False, limit)
            done.set()

        if self.worker.pool_cls.__module__.endswith("solo"):
            say()  # the main thread is the one that is late
        else:
            self.worker.consumer.call_soon(say)
            done.wait(REPORT_S)
        self.node.flush_reports()

    # -- hearing ----------------------------------------------------------------------------------

    def _listen(self) -> None:
        if self.node.state not in (State.READY, State.DEAF):
            return
        deaf_for = self._hearing.look(
            busy=bool(worker_state.active_requests),
            taken=sum(worker_state.total_count.values()),
            waiting=self._does_anything_wait,
            now=time.monotonic(),
        )
        if deaf_for is None:
            if self.node.state is State.DEAF:
                log.warning("it hears again")
                self.node.enter(State.READY)
        elif deaf_for < self._longest_silence():
            return
        elif self.node.state is State.READY:
            log.warning("DEAF: idle for %.0f s while tickets wait: connecting anew", deaf_for)
            self.node.enter(State.DEAF)
            self.worker.consumer.call_soon(self._break_connection)
            self._hearing.forget()
        else:
            self.drain.end_hard(f"still deaf after {deaf_for:.0f} s more", again=True)

    def _does_anything_wait(self) -> bool:
        return any(self.bell.waiting(str(lane)) for lane in tuple(self.worker.app.amqp.queues.consume_from))

    def _longest_silence(self) -> float:
        """A ticket may be in hand while its process still loads the model."""
        loading = self.settings.setup_timeout_s if worker_state.reserved_requests else 0.0
        return self.settings.deaf_s + loading

    def _break_connection(self) -> None:
        """In the consumer's own loop: what it does when its connection is lost is connect anew, with all it needs."""
        raise ConnectionResetError("deaf: connecting anew")
