"""The way to the ledger's Redis, directly or by way of its Sentinels."""

from __future__ import annotations

from functools import cache
from typing import Any

import redis
import redis.utils
from redis.backoff import ExponentialWithJitterBackoff
from redis.retry import Retry

from jobs import sentinel
from jobs.errors import UsageError
from jobs.settings import Settings

__all__ = ["connect", "driver_version"]

#: Seconds that a single command may take; scripts are short.
_SOCKET_TIMEOUT_S = 20.0

#: The version of redis-py, which else looks it up for each connection: three quarters of the time that one takes.
driver_version = redis.utils.get_lib_version = cache(redis.utils.get_lib_version)


def connect(settings: Settings, *, retries: int = 3, timeout_s: float = _SOCKET_TIMEOUT_S) -> redis.Redis:
    """A client of the ledger's Redis. ``retries`` are attempts after the first, with backoff and jitter."""
    options: dict[str, Any] = {
        "socket_timeout": timeout_s,
        "socket_connect_timeout": 5.0,
        "retry": Retry(ExponentialWithJitterBackoff(cap=2.0, base=0.1), retries),
    }
    url = settings.redis_url
    try:
        if url.startswith(sentinel.SCHEME):
            return sentinel.master_of(url, settings.sentinel_master, **options)
        client = redis.Redis.from_url(url, **options)
    except ValueError as exc:
        raise UsageError(f"LABELMILL_BROKER_URL or LABELMILL_LEDGER_URL: {exc}") from None
    return client
