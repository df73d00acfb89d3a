"""Celery's result backend for Redis, with one round trip for an answer.

Celery reads what is stored before it stores, so that a late failure of a task that came twice does not replace its
success, and stores in a transaction of four commands. A success may replace anything, and a script is one command.

It also subscribes to each answer before it sends the call, which is a third of what sending costs. Here whoever waits
for an answer subscribes to it, and who asks for many at once, or never, does not.

And it sleeps for no time after each thing that it reads, so that greenlets have a turn. Where there are none, the core
goes idle meanwhile: with those of one idle call it is three quarters of a millisecond until it is back.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

from celery import states
from celery.app.backends import BACKEND_ALIASES
from celery.backends import asynchronous
from celery.backends.asynchronous import Drainer
from celery.backends.redis import RedisBackend, SentinelBackend
from celery.backends.redis import ResultConsumer as CelerysConsumer
from kombu.utils.compat import detect_environment

from jobs.scripts import lua_script

__all__ = ["Backend", "BehindSentinels", "install"]

#: Seconds after which whoever waits looks for himself, and then after twice as many, and so on.
LOOK_S = 1.0

#: KEYS: the results; ARGV: seconds to keep them (0: for ever), and then the results.
STORE = lua_script("""
for i, key in ipairs(KEYS) do
  local value = ARGV[i + 1]
  if tonumber(ARGV[1]) > 0 then redis.call('SETEX', key, ARGV[1], value) else redis.call('SET', key, value) end
  redis.call('PUBLISH', key, value)
end
""")


class ResultConsumer(CelerysConsumer):  # type: ignore[misc]
    """As Celery's; looks again while it waits.

    It subscribes, and looks whether the answer is there already. These go over two connections: one that comes when the
    look is done and the subscription still on its way would be told to nobody.
    """

    on_message: Callable[[dict[str, Any]], object] | None

    def on_wait_for_pending(self, result: Any, **options: Any) -> None:
        """A look. After one at a group Celery sleeps for half a second, in which nobody reads what has come."""
        super().on_wait_for_pending(result, **{**options, "interval": 0})

    def _wait_for_pending(
        self, result: Any, timeout: float | None = None, on_interval: Callable[[], Any] | None = None, **options: Any
    ) -> Iterator[None]:
        wait_s = LOOK_S
        due = time.monotonic() + wait_s

        def look() -> None:
            nonlocal wait_s, due
            if on_interval:
                on_interval()
            if time.monotonic() >= due:
                wait_s *= 2
                due = time.monotonic() + wait_s
                told = self.on_message
                self.on_message = None  # as at the first look
                try:
                    self.on_wait_for_pending(result)
                finally:
                    self.on_message = told

        found: Iterator[None] = super()._wait_for_pending(result, timeout=timeout, on_interval=look, **options)
        return found


class Backend(RedisBackend):  # type: ignore[misc]
    """As Celery's."""

    ResultConsumer = ResultConsumer

    def on_task_call(self, producer: Any, task_id: str) -> None:
        """Subscribe to an answer before it can come, where a greenlet reads all of them; else who waits does."""
        if type(self.result_consumer.drainer) is not Drainer:
            super().on_task_call(producer, task_id)

    def _store_result(
        self, task_id: str, result: Any, state: str, traceback: Any = None, request: Any = None, **options: Any
    ) -> Any:
        if state != states.SUCCESS:
            return super()._store_result(task_id, result, state, traceback=traceback, request=request, **options)
        meta = self._get_result_meta(result=result, state=state, traceback=traceback, request=request)
        self._set_with_state(self.get_key_for_task(task_id), self.encode({**meta, "task_id": task_id}), state)
        return result

    def _set(self, key: str | bytes, value: str | bytes, expires: float | None = None) -> None:
        self.write_all([key], [value], expires)

    def write_all(self, keys: list[str | bytes], values: list[str | bytes], expires: float | None = None) -> None:
        """Store these at once, and tell who waits for them. Raises what Redis raises, with nothing stored."""
        kept_s = int((self.expires if expires is None else expires) or 0)
        STORE(keys, [kept_s, *values], client=self.client)


class BehindSentinels(Backend, SentinelBackend):  # type: ignore[misc]
    """The same where Sentinels say which Redis it is."""


def install() -> None:
    """Let ``redis://``, ``rediss://`` and ``sentinel://`` mean these backends in this process from now on."""
    for scheme, backend in (("redis", Backend), ("rediss", Backend), ("sentinel", BehindSentinels)):
        BACKEND_ALIASES[scheme] = f"{__name__}:{backend.__name__}"
    asynchronous.sleep = _give_way


def _give_way(seconds: float) -> None:
    """Celery's sleep while it reads answers; of no time only where greenlets wait for it."""
    if seconds or detect_environment() != "default":  # type: ignore[no-untyped-call]
        time.sleep(seconds)
