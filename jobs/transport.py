"""kombu's transport for Redis, which keeps its clients.

kombu makes a client of redis-py for each command that it sends, and each of them fills a table of all that Redis can
be asked: with a single call that is a millisecond of producer and worker together, before and after its image.
"""

from __future__ import annotations

from typing import Any

from kombu.transport import TRANSPORT_ALIASES, _transport_cache, redis

__all__ = ["Channel", "Transport", "install"]


class Channel(redis.Channel):
    """One client for each of its pools; clients may be shared between threads."""

    def _create_client(self, asynchronous: bool = False) -> Any:
        pool = self.async_pool if asynchronous else self.pool
        kept = vars(self).setdefault("_kept_clients", {})
        client = kept.get(asynchronous)
        if client is None or client.connection_pool is not pool:  # a connection that was lost, or a fork: new pools
            client = kept[asynchronous] = super()._create_client(asynchronous)  # type: ignore[no-untyped-call]
        return client


class Transport(redis.Transport):
    """As kombu's, with channels that keep their clients."""

    Channel = Channel


def install() -> None:
    """Let ``redis://``, ``rediss://`` and ``redis+socket://`` mean this transport in this process from now on."""
    for scheme in ("redis", "rediss"):
        TRANSPORT_ALIASES[scheme] = f"{__name__}:{Transport.__name__}"
        _transport_cache.pop(scheme, None)  # where it was used before, kombu knows what it meant then
