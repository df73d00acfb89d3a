"""Wait for a Redis that is gone or full: backoff with jitter, one line when it goes and one when it is back."""

from __future__ import annotations

import logging
import random
import threading
import time
from collections.abc import Callable
from typing import TypeVar

from redis.exceptions import BusyLoadingError, ConnectionError, OutOfMemoryError, ReadOnlyError, TimeoutError

from jobs.errors import BrokerUnavailableError

__all__ = ["GONE", "VOICE", "Patience", "Voice"]

T = TypeVar("T")
log = logging.getLogger(__name__)

#: What a Redis raises that is gone, restarting, failing over or full.
GONE = (ConnectionError, TimeoutError, BusyLoadingError, OutOfMemoryError, ReadOnlyError, BrokerUnavailableError)
#: First and longest wait between two attempts, in seconds.
FIRST_WAIT_S, LONGEST_WAIT_S = 0.1, 2.0


class Voice:
    """Says it once for all threads of a process when Redis goes, and once when it is back."""

    def __init__(self, say: Callable[[str], None] = log.warning) -> None:
        self.say = say
        self._since = 0.0
        self._lock = threading.Lock()

    def gone(self, exc: BaseException) -> None:
        """A call failed."""
        with self._lock:
            if self._since:
                return
            self._since = time.monotonic()
        self.say(f"{_what(exc)}: waiting for it")

    def back(self) -> None:
        """A call that had failed has its answer."""
        with self._lock:
            since, self._since = self._since, 0.0
        if since:
            self.say(f"Redis is back after {time.monotonic() - since:.1f} s")

    def left(self) -> None:
        """Whoever saw it go has ended, and will not see it come back: the next one who sees it gone says so."""
        with self._lock:
            self._since = 0.0


#: The one of this process; whoever has a better place for lines than the log sets its ``say``.
VOICE = Voice()


class Patience:
    """Repeats calls that may be repeated until Redis answers, or until ``stop`` is set.

    ``say`` becomes the voice of the whole process.
    """

    def __init__(self, *, stop: threading.Event | None = None, say: Callable[[str], None] | None = None) -> None:
        self._stop = stop or threading.Event()
        if say:
            VOICE.say = say

    def __call__(self, call: Callable[[], T]) -> T:
        """The call's answer. Raises what it raised when ``stop`` was set in the meantime."""
        wait = FIRST_WAIT_S
        failed = False
        while True:
            try:
                answer = call()
            except GONE as exc:
                failed = True
                VOICE.gone(exc)
                # full jitter, so that a fleet does not come back in one wave
                if self._stop.wait(random.uniform(wait / 2, wait)):
                    raise
                wait = min(wait * 2, LONGEST_WAIT_S)
            else:
                if failed:
                    VOICE.back()
                return answer


def _what(exc: BaseException) -> str:
    if isinstance(exc, BrokerUnavailableError):
        return exc.message
    if isinstance(exc, OutOfMemoryError):
        return "Redis is full (maxmemory)"
    return f"Redis does not answer ({type(exc).__name__})"
