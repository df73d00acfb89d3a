"""The wards of a worker's main process: the processes of its pool, and what each of them holds.

Celery may miss that a process died with a task which it had taken a moment before. So each process notes the token of
its lease in memory that it shares with the main process, and the main process is told by the kernel when one ends: what
it held then is reported at once, and nobody waits for the lease to end.
"""

from __future__ import annotations

import mmap
import os
import select
import struct
import threading
from collections.abc import Callable

__all__ = ["Slots", "Wards"]

#: Bytes of one slot: process id, length of the token, token.
SLOT = struct.Struct("=qH54s")
#: Processes of one pool at most; those beyond are found by their leases.
MOST_PROCESSES = 1024


class Slots:
    """One place for each process of a pool, by its number in the pool; made before the processes are.

    And one for the main process, to tell them all that intake is closed: no more chunks are claimed.
    """

    def __init__(self) -> None:
        self._memory = mmap.mmap(-1, SLOT.size * MOST_PROCESSES + 1)

    def close_intake(self) -> None:
        """From now on none of these processes, nor a thread of this one, claims another chunk."""
        self._memory[-1] = 1

    def is_closed(self) -> bool:
        """Whether intake is closed."""
        return bool(self._memory[-1])

    def write(self, number: int, token: str) -> None:
        """This process holds a token; "" where it holds none."""
        if number < MOST_PROCESSES:
            text = token.encode()[:54]
            SLOT.pack_into(self._memory, number * SLOT.size, os.getpid(), len(text), text)

    def held_by(self, pid: int) -> str:
        """The token that a process held last; "" where it held none."""
        for number in range(MOST_PROCESSES):
            owner, length, text = SLOT.unpack_from(self._memory, number * SLOT.size)
            if owner == pid:
                return str(text[:length].decode())
        return ""


class Wards:
    """Tells of the token that a process held when it ended. ``died(token)`` is called in a thread of its own."""

    def __init__(self, slots: Slots, died: Callable[[str], None]) -> None:
        self._slots = slots
        self._died = died
        self._epoll = select.epoll()
        self._pids: dict[int, int] = {}  # pidfd -> pid

    def start(self) -> None:
        """Begin to watch."""
        threading.Thread(target=self._run, name="wards", daemon=True).start()

    def add(self, pid: int) -> None:
        """Watch a process, too."""
        try:
            fd = os.pidfd_open(pid)
        except ProcessLookupError:
            self._tell(pid)
            return
        self._pids[fd] = pid
        self._epoll.register(fd, select.EPOLLIN)

    def pids(self) -> list[int]:
        """The processes that live, as far as is known."""
        return list(self._pids.values())

    def _run(self) -> None:
        while True:
            for fd, _ in self._epoll.poll():
                self._epoll.unregister(fd)
                pid = self._pids.pop(fd)
                os.close(fd)
                self._tell(pid)

    def _tell(self, pid: int) -> None:
        if token := self._slots.held_by(pid):
            self._died(token)
