"""kombu's transport for Redis; keeps its clients, notes what it delivers by one script, and drops what is no message.

kombu makes a client of redis-py for each command that it sends, and each of them fills a table of all that Redis can
be asked: with a single call that is a millisecond of producer and worker together, before and after its image.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import Any

from kombu.transport import TRANSPORT_ALIASES, _transport_cache, redis
from kombu.utils.json import dumps

from jobs.scripts import lua_script

__all__ = ["WAITING", "Channel", "QoS", "SentinelChannel", "SentinelTransport", "Transport", "install"]

log = logging.getLogger(__name__)

#: Header of a message, as its task sees it: how many messages waited behind it when it was delivered.
WAITING = "waiting"
#: KEYS: index and payloads of what is delivered and not acknowledged, its queue; ARGV: now in seconds, tag, payload.
DELIVERED = lua_script("""
redis.call('ZADD', KEYS[1], ARGV[1], ARGV[2])
redis.call('HSET', KEYS[2], ARGV[2], ARGV[3])
local waiting = redis.pcall('LLEN', KEYS[3])
return type(waiting) == 'number' and waiting or 0
""")


class QoS(redis.QoS):
    """Notes a delivery by one script, where kombu's sends a transaction of four commands: every call waits for it.

    The same script says what else waits, so that nobody has to ask.
    """

    def append(self, message: Any, delivery_tag: str) -> None:
        """See kombu."""
        if self.channel.global_keyprefix:  # kombu's clients prefix the first key of a script only
            super().append(message, delivery_tag)  # type: ignore[no-untyped-call]
            return
        with self.channel.conn_or_acquire() as client:
            where = message.delivery_info
            delivered = dumps([message._raw, where["exchange"], where["routing_key"]])  # type: ignore[no-untyped-call]
            keys = [self.unacked_index_key, self.unacked_key, getattr(message, "queue", "")]
            message.headers[WAITING] = DELIVERED(keys, [time.time(), delivery_tag, delivered], client=client)
        super(redis.QoS, self).append(message, delivery_tag)  # type: ignore[no-untyped-call]


class Channel(redis.Channel):
    """One client for each of its pools; clients may be shared between threads.

    Anyone can put anything into a list of Redis. kombu raises on what is no message of its own, which ends the worker,
    and then the next one, and so on: here it is dropped, and said.
    """

    QoS = QoS
    _is_read = False

    def _create_client(self, asynchronous: bool = False) -> Any:
        pool = self.async_pool if asynchronous else self.pool
        kept = vars(self).setdefault("_kept_clients", {})
        client = kept.get(asynchronous)
        if client is None or client.connection_pool is not pool:  # a connection that was lost, or a fork: new pools
            client = kept[asynchronous] = super()._create_client(asynchronous)  # type: ignore[no-untyped-call]
        return client

    def basic_consume(
        self, queue: str, no_ack: bool, callback: Callable[[Any], Any], *args: Any, **kwargs: Any
    ) -> None:
        """See kombu."""
        super().basic_consume(queue, no_ack, callback, *args, **kwargs)  # type: ignore[no-untyped-call]

        def deliver(raw: Any) -> Any:
            self._is_read = True
            try:
                message = self._message(raw)
            except (LookupError, TypeError, ValueError, AttributeError) as exc:
                log.warning("what was in queue %s is no message, and was dropped (%s)", queue, repr(exc)[:200])
                return None
            message.queue = queue  # what it says of itself may be another key
            if not no_ack:
                self.qos.append(message, message.delivery_tag)
            return callback(message)

        self.connection._callbacks[queue] = deliver

    def _message(self, raw: Any) -> Any:
        """The message of a payload; raises one of four kinds of error where it is none."""
        message = self.Message(raw, channel=self)  # type: ignore[no-untyped-call]
        where = [message.delivery_info[name] for name in ("exchange", "routing_key")]
        if not (isinstance(message.headers, dict) and all(isinstance(name, str | None) for name in where)):
            raise TypeError("its headers, or its destination")
        if not isinstance(message.delivery_tag, str):
            raise TypeError("its tag")
        return message

    def _brpop_read(self, **options: Any) -> Any:
        self._is_read = False
        try:
            return super()._brpop_read(**options)  # type: ignore[no-untyped-call]
        except (ValueError, TypeError, AttributeError, ArithmeticError, RecursionError) as exc:
            # of its JSON or UTF-8, or of kombu's own types in JSON; what is read is delivered here, too
            if self._is_read or (isinstance(exc, AttributeError) and exc.obj is None):
                raise
            log.warning("what was in a queue is no JSON, and was dropped (%s)", repr(exc)[:200])
            return True


class Transport(redis.Transport):
    """As kombu's, with channels that keep their clients."""

    Channel = Channel


class SentinelChannel(Channel, redis.SentinelChannel):
    """The same, where Sentinels say which Redis it is."""


class SentinelTransport(redis.SentinelTransport):
    """As kombu's, with channels that keep their clients."""

    Channel = SentinelChannel


def install() -> None:
    """Let URLs of a Redis, and of Sentinels, mean these transports in this process from now on."""
    for scheme, transport in (("redis", Transport), ("rediss", Transport), ("sentinel", SentinelTransport)):
        TRANSPORT_ALIASES[scheme] = f"{__name__}:{transport.__name__}"
        _transport_cache.pop(scheme, None)  # where it was used before, kombu knows what it meant then
