"""Ctrl-C and SIGTERM: both end a command as a :class:`KeyboardInterrupt`, but not just anywhere.

Python raises it wherever the main thread happens to be, and there are places where nobody can make use of it. In a
finalizer or a hook of ``os.fork`` it is printed as ignored: the command goes on, and where the hook was the one that
gives logging's lock back, every other thread that logs waits for ever. Between a lock that is taken and the ``try``
after it (``subprocess.Popen.poll``), the lock is never given back, and the wait that is to clean up waits for ever.
So what must not be torn apart is :data:`shielded`, and what Python ignored comes again.
"""

from __future__ import annotations

import _thread
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import TYPE_CHECKING, Final, cast

if TYPE_CHECKING:
    from sys import UnraisableHookArgs

__all__ = ["handled", "install", "interrupt", "shielded"]

#: Seconds until an interruption that was ignored comes again: where it was ignored has been left by then.
AGAIN_S = 0.05


class _Shield:
    """A context of the main thread in which an interruption waits until its end. It may be nested.

    There are no calls between a check for signals and the change of ``_depth``: nothing comes between them.
    """

    def __init__(self) -> None:
        self._depth = 0
        self._came = False

    def __enter__(self) -> None:
        self._depth += 1

    def __exit__(self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None) -> None:
        self._depth -= 1
        if self._came and not self._depth:
            self._came = False
            raise KeyboardInterrupt

    def handle(self, signum: int, frame: object) -> None:
        """A signal's handler."""
        if self._depth:
            self._came = True
        else:
            raise KeyboardInterrupt


#: ``with shielded:`` what must not be torn apart. Only in the main thread; short, or the user waits.
shielded: Final = _Shield()


@contextmanager
def handled() -> Iterator[None]:
    """Ctrl-C and SIGTERM interrupt what happens inside. Only in the main thread."""
    before = [(number, signal.getsignal(number)) for number in (signal.SIGINT, signal.SIGTERM)]
    install()
    hook, sys.unraisablehook = sys.unraisablehook, _unraisable
    try:
        yield
    finally:
        sys.unraisablehook = hook
        for number, handler in before:
            signal.signal(number, handler)


def install() -> None:
    """Handle the two signals, also after somebody else did.

    A SIGINT that is ignored stays so: the shell of a script has those ignore it that it runs beside itself.
    """
    if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:
        signal.signal(signal.SIGINT, shielded.handle)
    signal.signal(signal.SIGTERM, shielded.handle)


def interrupt() -> None:
    """Interrupt the main thread, wherever it waits; from another thread."""
    # SIGTERM: SIGINT may be ignored. To the thread itself: a signal that another one takes ends no wait of this one.
    signal.pthread_kill(cast("int", threading.main_thread().ident), signal.SIGTERM)


def _unraisable(unraisable: UnraisableHookArgs) -> None:
    """Python ignored an exception. This takes no lock: it may have been called in the middle of anything."""
    if issubclass(unraisable.exc_type, KeyboardInterrupt):
        _thread.start_new_thread(_again, ())
    else:
        sys.__unraisablehook__(unraisable)


def _again() -> None:
    time.sleep(AGAIN_S)
    interrupt()
