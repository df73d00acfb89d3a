"""The same client for asyncio: every call runs in a thread, so that nothing is written twice.

async with AsyncLabelmill() as client:
    job = await client.submit("photos/", model="efficientnet-lite0")
    async for result in job.results():
        print(result.custom_id, result.status)
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial, wraps
from typing import Any, Concatenate, ParamSpec, Protocol, TypeVar, cast

from jobs.settings import Settings
from producer.client import Labelmill
from producer.job import Job

__all__ = ["AsyncJob", "AsyncLabelmill"]

#: Threads of one client: calls that may be under way at once.
THREADS = 32

P = ParamSpec("P")
T = TypeVar("T")
S = TypeVar("S")


class _Twin(Protocol):
    """What has a blocking twin, and threads to call it in."""

    _sync: Any
    _threads: ThreadPoolExecutor


def _awaited(method: Callable[Concatenate[S, P], T]) -> Callable[Concatenate[Any, P], Coroutine[Any, Any, T]]:
    """The method as a coroutine."""

    @wraps(method)
    async def call(self: _Twin, *args: P.args, **kwargs: P.kwargs) -> T:
        return await _in_thread(self, partial(method, self._sync, *args, **kwargs))

    return cast("Callable[Concatenate[Any, P], Coroutine[Any, Any, T]]", call)


def _streamed(method: Callable[Concatenate[S, P], Iterator[T]]) -> Callable[Concatenate[Any, P], AsyncIterator[T]]:
    """The method, which gives an iterator, as an asynchronous iterator."""

    @wraps(method)
    async def stream(self: _Twin, *args: P.args, **kwargs: P.kwargs) -> AsyncIterator[T]:
        iterator = method(self._sync, *args, **kwargs)
        end = object()
        try:
            while (value := await _in_thread(self, partial(next, iterator, end))) is not end:
                yield value
        finally:
            close = getattr(iterator, "close", None)
            if close is not None:
                with suppress(ValueError):  # its thread is still in it: it ends with its page
                    close()

    return cast("Callable[Concatenate[Any, P], AsyncIterator[T]]", stream)


def _opened(method: Callable[Concatenate[S, P], Job]) -> Callable[Concatenate[Any, P], Coroutine[Any, Any, AsyncJob]]:
    """The method, which gives a job, as a coroutine that gives its twin."""

    @wraps(method)
    async def call(self: _Twin, *args: P.args, **kwargs: P.kwargs) -> AsyncJob:
        job = await _in_thread(self, partial(method, self._sync, *args, **kwargs))
        return AsyncJob(job, self._threads)

    return cast("Callable[Concatenate[Any, P], Coroutine[Any, Any, AsyncJob]]", call)


async def _in_thread(twin: _Twin, call: Callable[[], T]) -> T:
    return await asyncio.get_running_loop().run_in_executor(twin._threads, call)


class AsyncJob:
    """:class:`~producer.job.Job` for asyncio: the same methods, to be awaited or iterated with ``async for``."""

    def __init__(self, job: Job, threads: ThreadPoolExecutor) -> None:
        self._sync = job
        self._threads = threads

    @property
    def id(self) -> str:
        """The job's id."""
        return self._sync.id

    status = _awaited(Job.status)
    send = _awaited(Job.send)
    cancel = _awaited(Job.cancel)
    retry = _awaited(Job.retry)
    audit = _awaited(Job.audit)
    delete = _awaited(Job.delete)
    dead_letters = _awaited(Job.dead_letters)
    replay = _awaited(Job.replay)
    drop = _awaited(Job.drop)
    wait = _awaited(Job.wait)
    results = _streamed(Job.results)
    pages = _streamed(Job.pages)
    watch = _streamed(Job.watch)


class AsyncLabelmill:
    """:class:`~producer.client.Labelmill` for asyncio. It connects when it is entered."""

    _sync: Labelmill

    def __init__(self, broker_url: str | None = None, *, settings: Settings | None = None) -> None:
        self._make = partial(Labelmill, broker_url, settings=settings)
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="labelmill")

    async def __aenter__(self) -> AsyncLabelmill:
        self._sync = await asyncio.get_running_loop().run_in_executor(self._threads, self._make)
        return self

    async def __aexit__(self, *exc: object) -> None:
        self._threads.shutdown(wait=False, cancel_futures=True)

    workers = _awaited(Labelmill.workers)
    models = _awaited(Labelmill.models)
    served = _awaited(Labelmill.served)
    jobs = _awaited(Labelmill.jobs)
    events = _streamed(Labelmill.events)
    job = _opened(Labelmill.job)
    submit = _opened(Labelmill.submit)
    open = _opened(Labelmill.open)
