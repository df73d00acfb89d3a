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

__all__ = ["by_interruption", "handled", "install", "interrupt", "shielded"]

#: Seconds in which a second signal is the same interruption, as from whoever sends both: what the first one has begun
#: to clean up is not interrupted at its first line. And seconds until one that was ignored comes again.
SAME_S = 0.1


class _Interruptions:
    """Those of the main thread. As a context, they wait until its end; it may be nested.

    Nothing is called between a look of Python's for signals and a change of ``_depth``: none comes between them.
    """

    def __init__(self) -> None:
        self._depth = 0
        #: One waits for the end of the shield, or to come again.
        self.waits = False
        #: When the last one was raised.
        self._raised = -SAME_S
        self.is_handled = False
        #: A SIGINT that is ignored stays so: the shell of a script has those ignore it that it runs beside itself.
        self._takes_sigint = True
        #: Held while one is sent, and while handling ends.
        self.lock = threading.Lock()

    def __enter__(self) -> None:
        if _is_main_thread():
            self._depth += 1

    def __exit__(self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None) -> None:
        if _is_main_thread():
            self._depth -= 1
            if self.waits and not self._depth:
                self._raise()

    def begin(self) -> None:
        """Handle signals from now on."""
        self._takes_sigint = signal.getsignal(signal.SIGINT) is not signal.SIG_IGN
        self.waits, self._raised = False, -SAME_S
        self.is_handled = True
        self.install()

    def install(self) -> None:
        """See :func:`install`."""
        signal.signal(signal.SIGINT, self._handle if self._takes_sigint else signal.SIG_IGN)
        signal.signal(signal.SIGTERM, self._handle)

    def end(self) -> None:
        """Nobody sends one any more."""
        with self.lock:
            self.is_handled = False

    def _handle(self, signum: int, frame: object) -> None:
        if self._depth:
            self.waits = True
        elif self.waits or time.monotonic() - self._raised >= SAME_S:
            self._raise()

    def _raise(self) -> None:
        self.waits = False
        self._raised = time.monotonic()
        raise KeyboardInterrupt


#: ``with shielded:`` what must not be torn apart; short, or the user waits. Of no effect but in the main thread.
shielded: Final = _Interruptions()


@contextmanager
def handled() -> Iterator[None]:
    """Ctrl-C and SIGTERM interrupt what happens inside. Only in the main thread."""
    before = [(number, signal.getsignal(number)) for number in (signal.SIGINT, signal.SIGTERM)]
    hook = sys.unraisablehook
    try:
        sys.unraisablehook = _unraisable
        shielded.begin()
        yield
    finally:
        with shielded:
            shielded.end()
            sys.unraisablehook = hook
            for number, handler in before:
                signal.signal(number, handler)


def install() -> None:
    """Handle the two signals again after somebody else did, within :func:`handled`."""
    shielded.install()


def interrupt() -> None:
    """Interrupt the main thread, wherever it waits, from another one; nothing where signals are not handled."""
    with shielded.lock:
        if shielded.is_handled:
            # SIGTERM, as SIGINT may be ignored; a signal, as nothing else ends a wait
            signal.pthread_kill(cast("int", threading.main_thread().ident), signal.SIGTERM)


def by_interruption(exc: BaseException | None) -> bool:
    """Whether an exception came of an interruption: one in the middle of ``Thread.start`` ends as a RuntimeError."""
    while exc is not None:
        if isinstance(exc, KeyboardInterrupt):
            return True
        exc = exc.__context__
    return False


def _is_main_thread() -> bool:
    return threading.get_ident() == threading.main_thread().ident


def _unraisable(unraisable: UnraisableHookArgs) -> None:
    """Python ignored an exception. This takes no lock: it may have been called in the middle of anything."""
    if issubclass(unraisable.exc_type, KeyboardInterrupt):
        shielded.waits = True
        _thread.start_new_thread(_again, ())
    else:
        sys.__unraisablehook__(unraisable)


def _again() -> None:
    time.sleep(SAME_S)  # where it was ignored has been left by then; if not, it is ignored and comes again, again
    if shielded.waits:
        interrupt()
