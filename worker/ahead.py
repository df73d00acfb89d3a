"""Fetching ahead: while one image is decoded and classified, the next ones are already on their way."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import cache

from worker.fetch import is_remote

__all__ = ["AHEAD", "FetchAhead"]

#: Images that are under way or held at once: 160 a second of a server that takes 200 ms for an answer. As long as none
#: has come, nobody knows how large they are.
AHEAD, AT_FIRST = 32, 8
#: Bytes of images that are under way or held, were all as large as the largest so far; one always may be.
AHEAD_BYTES = 64 << 20


class FetchAhead:
    """Fetches what is remote in the order in which it will be asked for, :data:`AHEAD` images at the most ahead.

    ``more`` gives the references of what comes after all that is expected, none where there is nothing now. What is not
    remote is left to whoever asks: a local file is read faster than a thread is told to.
    """

    def __init__(
        self,
        fetch: Callable[[str], bytes],
        more: Callable[[], Sequence[str]] = lambda: (),
        *,
        is_remote: Callable[[str], bool] = is_remote,
    ) -> None:
        self._fetch = fetch
        self._more = more
        self._is_remote = is_remote
        self._expected: deque[str] = deque()
        self._under_way: deque[tuple[str, Future[bytes]]] = deque()
        self._largest = 0

    def expect(self, refs: Sequence[str]) -> None:
        """These will be asked for, after those that are expected already; a repeat is left to whoever asks."""
        self._expected += filter(self._is_remote, dict.fromkeys(refs))

    def fetch(self, ref: str) -> bytes:
        """The bytes of one of them; raises what fetching it raised."""
        if not self._is_remote(ref):
            return self._fetch(ref)
        if not self._under_way:
            self._send()
        future = self._taken(ref)
        self._send()
        # the threads may be busy with what somebody else has forgotten: what none has begun we fetch ourselves
        data = self._fetch(ref) if future is None or future.cancel() else future.result()
        self._largest = max(self._largest, len(data))
        return data

    def forget(self) -> None:
        """None of them will be asked for."""
        self._expected.clear()
        for _, future in self._under_way:
            future.cancel()
        self._under_way.clear()

    def _taken(self, ref: str) -> Future[bytes] | None:
        for place, (name, future) in enumerate(self._under_way):
            if name == ref:
                del self._under_way[place]
                return future
        return None

    def _send(self) -> None:
        most = max(1, min(AHEAD, AHEAD_BYTES // self._largest)) if self._largest else AT_FIRST
        while len(self._under_way) < most:
            if not self._expected:
                self.expect(self._more())
                if not self._expected:
                    return
            ref = self._expected.popleft()
            self._under_way.append((ref, _threads().submit(self._fetch, ref)))


@cache
def _threads() -> ThreadPoolExecutor:
    """Of this process, for as long as it lives."""
    return ThreadPoolExecutor(AHEAD, thread_name_prefix="fetch")
