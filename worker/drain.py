"""The end of a worker: drained in time, or hard; with nothing lost and nothing run twice either way.

The first SIGTERM or SIGINT stops intake, and Celery ends when what is held is done. After ``drain_timeout_s``, or at a
second signal, the end is hard, in this order: the processes of the pool are killed, so that nothing of theirs can be
recorded any more; then what they held is given back unharmed, so that others take it at once; then this process ends.

A worker that must be replaced (its memory, a chunk past its time in a pool that cannot be killed) drains or ends hard
in the same way, and begins again under the same process id: ``execv`` needs no supervisor.
"""

from __future__ import annotations

import atexit
import contextlib
import logging
import os
import select
import signal
import sys
import threading
import time
from typing import Any, NoReturn

import psutil
from celery.worker import state as worker_state

from jobs.connection import connect
from jobs.ledger import Ledger
from jobs.patience import GONE
from jobs.settings import Settings
from jobs.tickets import TICKET_TASK, Bell, token_of
from worker.node import Node, State
from worker.requests import process_of
from worker.wards import Slots

__all__ = ["EXIT_HARD", "Drain", "held_tokens"]

log = logging.getLogger(__name__)

#: Exit code of a worker that did not drain in time or was told twice to end: as a shell says it of SIGTERM.
EXIT_HARD = 128 + signal.SIGTERM
#: Seconds that killed processes may take to be gone.
KILL_S = 5.0
#: Seconds that Redis may take for each answer when a worker gives back what it held.
GIVE_BACK_S = 2.0


def held_tokens() -> list[str]:
    """Tokens of the leases that this worker's processes hold: those of its tickets in hand."""
    tickets = (request for request in tuple(worker_state.active_requests) if request.name == TICKET_TASK)
    return [token_of(ticket.id, process_of(ticket)) for ticket in tickets]


class Drain:
    """Sees that this worker ends in time. One for each main process."""

    def __init__(self, node: Node, settings: Settings, bell: Bell, slots: Slots) -> None:
        self.node = node
        self.settings = settings
        self.bell = bell
        self.slots = slots
        self.is_replacing = False
        # A signal handler may write here: it takes no lock.
        self._signals = os.eventfd(0, os.EFD_SEMAPHORE | os.EFD_CLOEXEC)
        self._asked = 0
        self._hard = threading.Lock()

    def start(self) -> None:
        """Begin to wait for the end."""
        threading.Thread(target=self._run, name="drain", daemon=True).start()

    def asked(self, how: str = "Warm", **_: Any) -> None:
        """Celery got a signal to end. Called in its signal handler."""
        self._asked += 1
        os.eventfd_write(self._signals, 1 if how == "Warm" else 2)

    def replace(self, why: str) -> None:
        """Drain, and begin again; not where somebody else has asked this worker to end.

        Without a signal to ourselves: it would be one with an operator's that comes at the same moment.
        """
        if not self.is_replacing and not self._asked:
            self.is_replacing = True
            log.warning("%s: draining, to begin again", why)
            atexit.register(self._begin_again)
            worker_state.should_stop = os.EX_OK  # as Celery's own handler of SIGTERM says it
            os.eventfd_write(self._signals, 1)

    def end_hard(self, why: str, *, again: bool = False, code: int = EXIT_HARD) -> NoReturn:
        """End now: kill, give back, and be gone, or begin again."""
        self._hard.acquire()  # once; whoever comes second waits for the end of the process
        log.warning("ending at once: %s", why)
        self.node.stop_reporting()
        self.slots.close_intake()  # a thread of this process would take up what is given back, and end with it
        tokens = held_tokens()
        _kill_children()
        try:
            self._give_back(tokens)
        except GONE as exc:
            log.warning("could not give back %d chunks (%s): their leases will lapse", len(tokens), type(exc).__name__)
        logging.shutdown()
        if again or self.is_replacing:
            self._begin_again()
        os._exit(code)

    def _run(self) -> None:
        os.eventfd_read(self._signals)
        self.slots.close_intake()  # each process ends its turn with the chunk that it is at
        was_ready = self.node.state is not State.STARTING
        self.node.enter(State.DRAINING)
        if not was_ready:
            self.end_hard("asked to end before it was ready", code=0)
        log.info("DRAINING: at most %g s; a second signal ends it at once", self.settings.drain_timeout_s)
        again, _, _ = select.select([self._signals], [], [], self.settings.drain_timeout_s)
        self.end_hard("asked again" if again else f"not done after {self.settings.drain_timeout_s:g} s")

    def _give_back(self, tokens: list[str]) -> None:
        ledger = Ledger(connect(self.settings, retries=0, timeout_s=GIVE_BACK_S), prefix=self.settings.key_prefix)
        for token in tokens:
            if lane := ledger.release(token):
                self.bell.ring(lane)
        self.node.withdraw()

    def _begin_again(self) -> None:
        """Returns where somebody else asked this worker to end meanwhile."""
        _kill_children()
        if self._asked:
            return
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(OSError, ValueError):  # whoever read it has gone
                stream.flush()
        os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])


def _kill_children() -> None:
    children = psutil.Process().children(recursive=True)
    for child in children:
        with contextlib.suppress(psutil.NoSuchProcess):
            child.kill()
    deadline = time.monotonic() + KILL_S
    while any(_lives(child) for child in children) and time.monotonic() < deadline:
        time.sleep(0.01)


def _lives(process: psutil.Process) -> bool:
    try:
        return bool(process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False
