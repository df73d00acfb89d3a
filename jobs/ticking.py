"""Work that is done again and again beside everything else, and that no fault may end."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

from jobs.patience import GONE, VOICE

__all__ = ["Ticking"]

log = logging.getLogger(__name__)


class Ticking:
    """Calls ``tick`` every ``every_s`` seconds in a thread of its own, between :meth:`start` and :meth:`stop`.

    A Redis that is gone is said once for the whole process, anything else is logged; the next tick comes all the same.
    """

    def __init__(self, tick: Callable[[], object], every_s: float, *, name: str) -> None:
        self._tick = tick
        self._every_s = every_s
        self._failed = False
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._loop, name=name, daemon=True)

    def start(self) -> None:
        """Begin; the first tick comes after ``every_s``."""
        self._thread.start()

    def stop(self) -> None:
        """End; waits for the tick under way."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join()
        if self._failed:
            VOICE.left()
            self._failed = False

    def _loop(self) -> None:
        while not self._stop.wait(self._every_s):
            self._guarded()

    def _guarded(self) -> None:
        try:
            self._tick()
        except GONE as exc:
            self._failed = True
            VOICE.gone(exc)
        except Exception:  # what this thread is for would never be done again
            log.exception("%s failed; it is tried again", self._thread.name)
        else:
            if self._failed:
                VOICE.back()
            self._failed = False
