"""No orphans: a process that ends when its parent does, whatever ends the parent."""

from __future__ import annotations

import ctypes
import signal

__all__ = ["end_with_parent"]

#: prctl(2): the signal that the kernel sends a process when its parent ends.
PR_SET_PDEATHSIG = 1


def end_with_parent(signum: signal.Signals = signal.SIGTERM) -> None:
    """Have this process sent ``signum`` when its parent ends. Linux only; takes no lock, so it may follow a fork."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signum)
