"""Fetching ahead: while one image of a chunk is decoded and classified, the next ones are already on their way."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from functools import cache
from itertools import islice

__all__ = ["AHEAD", "fetching_ahead"]

#: Images of a chunk that are fetched at once: a server far away is waited for once, not once for each image.
AHEAD = 8


@contextmanager
def fetching_ahead(
    refs: Sequence[str], fetch: Callable[[str], bytes], *, is_remote: Callable[[str], bool]
) -> Iterator[Callable[[str], bytes]]:
    """The same ``fetch``, for references that are asked for in this order; up to :data:`AHEAD` are under way or held.

    Only remote ones are: a local file is read faster than a thread is told to. What was not asked for in the end is
    given up when the block ends.
    """
    remote = [ref for ref in dict.fromkeys(refs) if is_remote(ref)]
    if len(remote) < 2:
        yield fetch
        return
    coming = iter(remote)
    under_way: dict[str, Future[bytes]] = {}

    def send(count: int) -> None:
        for ref in islice(coming, count):
            under_way[ref] = _threads().submit(fetch, ref)

    def fetch_next(ref: str) -> bytes:
        future = under_way.pop(ref, None)
        if future is None:
            return fetch(ref)
        send(1)
        return future.result()

    send(AHEAD)
    try:
        yield fetch_next
    finally:
        for future in under_way.values():
            future.cancel()


@cache
def _threads() -> ThreadPoolExecutor:
    """Of this process, for as long as it lives."""
    return ThreadPoolExecutor(AHEAD, thread_name_prefix="fetch")
