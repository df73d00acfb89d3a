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

__all__ = ["GONE", "Patience"]

T = TypeVar("T")
log = logging.getLogger(__name__)

#: What a Redis raises that is gone, restarting, failing over or full.
GONE = (ConnectionError, TimeoutError, BusyLoadingError, OutOfMemoryError, ReadOnlyError, BrokerUnavailableError)
#: First and longest wait between two attempts, in seconds.
FIRST_WAIT_S, LONGEST_WAIT_S = 0.1, 2.0


class Patience:
    """Repeats calls that may be repeated until Redis answers, or until ``stop`` is set."""

    def __init__(self, *, stop: threading.Event | None = None, say: Callable[[str], None] | None = None) -> None:
        self._stop = stop or threading.Event()
        self._say = say or log.warning

    def __call__(self, call: Callable[[], T]) -> T:
        """The call's answer. Raises what it raised when ``stop`` was set in the meantime."""
        wait, since = FIRST_WAIT_S, 0.0
        while True:
            try:
                answer = call()
            except GONE as exc:
                if not since:
                    since = time.monotonic()
                    self._say(f"{_what(exc)}: waiting for it")
                # full jitter, so that a fleet does not come back in one wave
                if self._stop.wait(random.uniform(wait / 2, wait)):
                    raise
                wait = min(wait * 2, LONGEST_WAIT_S)
            else:
                if since:
                    self._say(f"Redis is back after {time.monotonic() - since:.1f} s")
                return answer


def _what(exc: Exception) -> str:
    if isinstance(exc, BrokerUnavailableError):
        return exc.message
    if isinstance(exc, OutOfMemoryError):
        return "Redis is full (maxmemory)"
    return f"Redis does not answer ({type(exc).__name__})"
