"""The node: what a worker's main process does beside Celery. It says that the worker lives, and sweeps."""

from __future__ import annotations

import logging
import os
import socket
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from enum import StrEnum

import psutil
from celery import Celery

from jobs.connection import connect
from jobs.errors import LabelmillError
from jobs.ledger import Ledger
from jobs.patience import GONE, Patience
from jobs.reach import Reach
from jobs.reconciler import Reconciler
from jobs.registry import ModelInfo, Registry, WorkerInfo
from jobs.settings import Settings
from jobs.tickets import Bell
from jobs.webhooks import Herald
from worker.models.card import ModelCard
from worker.tally import Pace, Tally

__all__ = ["Node", "State"]

log = logging.getLogger(__name__)

#: Seconds between two signs of life, well within the registry's time to live.
ANNOUNCE_S = 2.0


class State(StrEnum):
    """What a worker says of itself. BUSY is READY with work in hand: it is shown, and never entered."""

    STARTING = "STARTING"
    READY = "READY"
    BUSY = "BUSY"
    DEAF = "DEAF"
    DRAINING = "DRAINING"
    SETUP_FAILED = "SETUP_FAILED"


#: What may follow what.
TRANSITIONS = {
    State.STARTING: {State.READY, State.DRAINING, State.SETUP_FAILED},
    State.READY: {State.DEAF, State.DRAINING, State.SETUP_FAILED},
    State.DEAF: {State.READY, State.DRAINING, State.SETUP_FAILED},
    State.DRAINING: {State.DRAINING, State.SETUP_FAILED},
    State.SETUP_FAILED: {State.SETUP_FAILED, State.DRAINING},
}


class Node:
    """One worker in the registry, with the reconciler that runs in it.

    ``in_hand`` counts what it has taken, ``pids`` are the processes of its pool.
    """

    def __init__(
        self,
        app: Celery,
        settings: Settings,
        models: Sequence[tuple[ModelCard, str]],
        *,
        in_hand: Callable[[], int] = lambda: 0,
        pids: Callable[[], Sequence[int]] = lambda: (),
    ) -> None:
        self.settings = settings
        self.models = [ModelInfo(card.name, digest, card.version, card.labels) for card, digest in models]
        self.state = State.STARTING
        self.in_hand = in_hand
        self._pids = pids
        self.tally = Tally()
        self._pace = Pace()
        self.name = f"{socket.gethostname()}:{os.getpid()}"
        self._processes = 0
        self._started_ms = int(time.time() * 1000)
        self._rates: dict[str, float] = {}
        self._app = app
        self._stop = threading.Event()
        self._changed = threading.Event()
        self._patience = Patience(stop=self._stop)
        self._crashes: deque[tuple[str, LabelmillError]] = deque()
        self._is_reporting = True

    def start(self, name: str, processes: int, rates: dict[str, float]) -> None:
        """READY: every process of the pool has its model. Raises nothing when Redis is gone: it waits beside."""
        client = connect(self.settings)
        self._registry = Registry(client, prefix=self.settings.key_prefix)
        self._ledger = Ledger(client, prefix=self.settings.key_prefix)
        self._bell = Bell(self._app)
        self._reconciler = Reconciler(self._ledger, self._bell, sweep_s=self.settings.sweep_s)
        self._herald = Herald(self._ledger, self.settings.webhook_hosts, secret=self.settings.webhook_secret)
        self.name = f"{name}:{os.getpid()}"
        self._processes, self._rates = processes, rates
        self.enter(State.READY)
        served = ", ".join(f"{model.name} {model.digest[:19]}" for model in self.models)
        log.info("READY: %s, %d processes", served, processes)
        self._thread = threading.Thread(target=self._live, name="node", daemon=True)
        self._thread.start()
        self._reconciler.start()
        self._herald.start()

    @property
    def shown(self) -> State:
        """The state, BUSY where it is READY and has work in hand."""
        return State.BUSY if self.state is State.READY and self.in_hand() else self.state

    def enter(self, state: State) -> None:
        """Change the state and say so."""
        if state not in TRANSITIONS[self.state]:
            raise RuntimeError(f"a worker cannot go from {self.state} to {state}")
        self.state = state
        self._changed.set()

    def stop(self) -> None:
        """The worker has ended: say so, and hand the sweeping on."""
        if self._stop.is_set() or self.state is State.SETUP_FAILED:
            return
        self._stop.set()
        self._changed.set()
        self._thread.join()
        self._reconciler.stop()
        self._herald.stop()
        self.flush_reports()
        try:
            self.withdraw()
        except GONE as exc:
            log.warning("could not withdraw from the registry (%s): it will lapse", type(exc).__name__)

    def withdraw(self) -> None:
        """Take this worker off the registry."""
        if self._processes:
            self._registry.withdraw(self.name)

    def report_crash(self, token: str, error: LabelmillError) -> None:
        """A process died with a lease: no need to wait for its end. Told by a thread, for Redis may be gone."""
        self._crashes.append((token, error))
        self._changed.set()

    def stop_reporting(self) -> None:
        """From now on processes die because we end them: that is no crash."""
        self._is_reporting = False

    def flush_reports(self) -> None:
        """Tell the ledger now what :meth:`report_crash` was told."""
        while self._is_reporting:
            try:
                token, error = self._crashes.popleft()
            except IndexError:
                return
            try:
                if lane := self._ledger.crashed(token, error):
                    log.warning("a process died with its chunk: %s", error.code)
                    self._bell.ring(lane, 2)  # the chunk waits again, perhaps in halves
            except GONE as exc:
                log.warning("could not report a crash (%s): its lease will lapse", type(exc).__name__)

    def _live(self) -> None:
        try:
            for model in self.models:
                self._patience(lambda model=model: self._registry.publish_model(model))  # type: ignore[misc]
            while not self._stop.is_set():
                self._changed.clear()
                self.flush_reports()
                self._patience(lambda: self._registry.announce(self._info()))
                self._changed.wait(ANNOUNCE_S)
        except GONE:
            return  # asked to stop while Redis was gone

    def resident_bytes(self) -> int:
        """Memory of the worker and its processes."""
        return sum(map(_rss, [os.getpid(), *self._pids()]))

    def _info(self) -> WorkerInfo:
        rss = self.resident_bytes()
        models = tuple(ModelInfo(m.name, m.digest, images_per_s=self._rates.get(m.name, 0.0)) for m in self.models)
        host = socket.gethostname()
        reach = Reach.of(self.settings.file_roots, self.settings.url_hosts)
        images, last = self.tally.read()
        rate, last_ms = self._pace(images, time.monotonic()), int(last * 1000)
        pid, started = os.getpid(), self._started_ms
        return WorkerInfo(self.name, self.shown, host, pid, self._processes, models, started, rss, reach, rate, last_ms)


def _rss(pid: int) -> int:
    """Bytes of memory that a process has resident; 0 where it has ended.

    The processes are known: to look for them, psutil would read a file of every process on the machine.
    """
    try:
        return int(psutil.Process(pid).memory_info().rss)
    except psutil.NoSuchProcess:
        return 0
