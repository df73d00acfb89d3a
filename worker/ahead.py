"""Fetching ahead: while one image is decoded and classified, the next ones are already on their way."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import cache

from worker.fetch import is_remote

__all__ = ["AHEAD", "FetchAhead"]

#: Images that are under way or held at once: 160 a second of a server that takes 200 ms for an answer.
AHEAD = 32
#: Bytes of images that are held, beyond which one is fetched at a time.
HELD_BYTES = 64 << 20


class FetchAhead:
    """Fetches what is remote in the order in which it will be asked for, :data:`AHEAD` images at the most ahead.

    ``more`` gives the references of what comes after all that is expected, none where there is nothing now. Files are
    left to whoever asks: a local file is read faster than a thread is told to.
    """

    def __init__(self, fetch: Callable[[str], bytes], more: Callable[[], Sequence[str]] = lambda: ()) -> None:
        self._fetch = fetch
        self._more = more
        self._expected: deque[str] = deque()
        self._under_way: dict[str, Future[bytes]] = {}

    def expect(self, refs: Sequence[str]) -> None:
        """These will be asked for, after those that are expected already."""
        self._expected += [ref for ref in dict.fromkeys(refs) if is_remote(ref)]

    def fetch(self, ref: str) -> bytes:
        """The bytes of one of them; raises what fetching it raised."""
        if not is_remote(ref):
            return self._fetch(ref)
        if ref not in self._under_way:
            self._send()
        future = self._under_way.pop(ref, None)
        self._send()
        return self._fetch(ref) if future is None else future.result()

    def forget(self) -> None:
        """None of them will be asked for."""
        self._expected.clear()
        for future in self._under_way.values():
            future.cancel()
        self._under_way.clear()

    def _send(self) -> None:
        while self._has_room():
            if not self._expected:
                self.expect(self._more())
                if not self._expected:
                    return
            ref = self._expected.popleft()
            if ref not in self._under_way:
                self._under_way[ref] = _threads().submit(self._fetch, ref)

    def _has_room(self) -> bool:
        arrived = [
            one for one in self._under_way.values() if one.done() and not one.cancelled() and not one.exception()
        ]
        held = sum(len(one.result()) for one in arrived)
        return len(self._under_way) < AHEAD and (held < HELD_BYTES or not self._under_way)


@cache
def _threads() -> ThreadPoolExecutor:
    """Of this process, for as long as it lives."""
    return ThreadPoolExecutor(AHEAD, thread_name_prefix="fetch")
