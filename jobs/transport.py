"""kombu's transport for Redis, which keeps its clients, and notes what it delivers by one script.

kombu makes a client of redis-py for each command that it sends, and each of them fills a table of all that Redis can
be asked: with a single call that is a millisecond of producer and worker together, before and after its image.
"""

from __future__ import annotations

import time
from typing import Any

from kombu.transport import TRANSPORT_ALIASES, _transport_cache, redis
from kombu.utils.json import dumps

__all__ = ["Channel", "QoS", "Transport", "install"]


#: KEYS: index and payloads of what is delivered and not acknowledged; ARGV: now in seconds, tag, payload.
DELIVERED = """
redis.call('ZADD', KEYS[1], ARGV[1], ARGV[2])
redis.call('HSET', KEYS[2], ARGV[2], ARGV[3])
"""


class QoS(redis.QoS):
    """Notes a delivery by one script, where kombu's sends a transaction of four commands: every call waits for it."""

    def append(self, message: Any, delivery_tag: str) -> None:
        """See kombu."""
        if self.channel.global_keyprefix:  # kombu's clients prefix the first key of a script only
            super().append(message, delivery_tag)  # type: ignore[no-untyped-call]
            return
        with self.channel.conn_or_acquire() as client:
            where = message.delivery_info
            delivered = dumps([message._raw, where["exchange"], where["routing_key"]])  # type: ignore[no-untyped-call]
            script = client.register_script(DELIVERED)
            script([self.unacked_index_key, self.unacked_key], [time.time(), delivery_tag, delivered])
        super(redis.QoS, self).append(message, delivery_tag)  # type: ignore[no-untyped-call]


class Channel(redis.Channel):
    """One client for each of its pools; clients may be shared between threads."""

    QoS = QoS

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
