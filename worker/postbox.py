"""Where calls are taken along from: a queue of the broker, looked into by a process that has a call already.

What is taken stays with the broker until it is acknowledged. On Redis one script takes many messages and enters them
where kombu keeps what was delivered, in kombu's form, so that a process that is killed loses none of them: the sweep of
any worker brings them back when the visibility timeout has passed. Other brokers give one message at a time.
"""

from __future__ import annotations

import base64
import binascii
import secrets
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import orjson
from celery import Celery
from kombu.connection import Connection
from kombu.transport import redis as kombu_redis

__all__ = ["HELD", "BrokerBox", "Postbox", "RedisBox", "Sealed", "bring_back", "open_box"]

#: Takes up to ARGV[1] messages, and no more than one in ARGV[2] of those that wait, rounded up. kombu pushes on the
#: left and pops on the right. A delivery has a tag of ours (ARGV[4] and a number above ARGV[5]), so that nothing need
#: be read here; what comes back has its own tag inside.
TAKE = """
local most = math.min(tonumber(ARGV[1]), math.ceil(redis.call('LLEN', KEYS[1]) / tonumber(ARGV[2])))
local taken = {}
for i = 1, most do
  local message = redis.call('RPOP', KEYS[1])
  if not message then break end
  local tag = ARGV[4] .. (ARGV[5] + i)
  redis.call('HSET', KEYS[2], tag, '[' .. message .. ',' .. ARGV[6] .. ']')
  redis.call('ZADD', KEYS[3], ARGV[3], tag)
  taken[i] = message
end
return taken
"""
#: Puts messages back to be the next ones, the last given first; those that the sweep has brought back are let be.
PUT_BACK = """
for i = 1, #ARGV, 2 do
  redis.call('ZREM', KEYS[3], ARGV[i])
  if redis.call('HDEL', KEYS[2], ARGV[i]) == 1 then redis.call('RPUSH', KEYS[1], ARGV[i + 1]) end
end
"""


#: Begins the name of what a process holds.
HELD = "calls "


@dataclass(frozen=True)
class Sealed:
    """A message as the broker has it. ``receipt`` is what its queue needs to acknowledge it or to take it back."""

    receipt: Any
    headers: dict[str, Any]
    properties: dict[str, Any]
    body: bytes
    content_type: str = "application/json"
    content_encoding: str = "utf-8"

    @classmethod
    def of_payload(cls, receipt: Any, raw: bytes) -> Sealed | None:
        """A message in kombu's form for brokers without one of their own; None where it is not in that form."""
        try:
            payload = orjson.loads(raw)
            headers, properties, body = payload["headers"], payload["properties"], payload["body"]
            if not (isinstance(headers, dict) and isinstance(properties, dict)):
                return None
            body = base64.b64decode(body) if properties.get("body_encoding") == "base64" else body.encode()
            form = payload["content-type"], payload["content-encoding"]
            return cls(receipt, headers, properties, body, *form)
        except (ValueError, TypeError, KeyError, AttributeError, binascii.Error):
            return None


class Postbox(Protocol):
    """A queue of calls. Used by one thread at a time."""

    def begin(self) -> str:
        """Forget what was taken before; what comes now has this name for :func:`bring_back`, "" for no need of one."""

    def take(self, queue: str, most: int, share: int) -> list[Sealed | None]:
        """Up to ``most`` more messages, oldest first, and no more than one in ``share`` of those that wait.

        None stands for one that cannot be read; :meth:`put_back` and :meth:`acknowledge` settle what was taken, by its
        place in all that was taken since :meth:`begin`.
        """

    def put_back(self, queue: str, taken: Sequence[int], *, tried: bool = False) -> None:
        """Let those at these places be taken by Celery's own consumer.

        ``tried``: they have run before, and must run alone.
        """

    def acknowledge(self, taken: Sequence[int]) -> None:
        """Those at these places are done with."""


class RedisBox:
    """The lists of kombu's Redis transport."""

    def __init__(self, channel: Any) -> None:
        self._redis = channel.client
        self._unacked = [channel.unacked_key, channel.unacked_index_key]
        self._take = self._redis.register_script(TAKE)
        self._put_back = self._redis.register_script(PUT_BACK)
        self._tag = ""
        self._raw: list[bytes] = []

    def take(self, queue: str, most: int, share: int) -> list[Sealed | None]:
        """See :class:`Postbox`; one round trip."""
        route = orjson.dumps(["", queue])[1:-1]  # the default exchange brings it back to this very queue
        before = len(self._raw)
        self._raw += self._take([queue, *self._unacked], [most, share, time.time(), self._tag, before, route])
        return [Sealed.of_payload(before + i, raw) for i, raw in enumerate(self._raw[before:])]

    def begin(self) -> str:
        """See :class:`Postbox`."""
        self._tag, self._raw = f"{secrets.token_hex(12)}-", []
        return f"{HELD}{self._tag}"

    def bring_back(self, held: str) -> int:
        """Put back what another process had taken and not acknowledged; returns how many messages."""
        tag = held.removeprefix(HELD)
        found = list(self._redis.hscan_iter(self._unacked[0], match=f"{tag}*", count=1000))
        for name, delivered in found:
            payload, _, queue = orjson.loads(delivered)
            self._put_back([queue, *self._unacked], [name, _marked(payload)])
        return len(found)

    def put_back(self, queue: str, taken: Sequence[int], *, tried: bool = False) -> None:
        """See :class:`Postbox`; one round trip."""
        pairs = [(self._name(i), _tried(self._raw[i]) if tried else self._raw[i]) for i in reversed(taken)]
        if pairs:
            self._put_back([queue, *self._unacked], [part for pair in pairs for part in pair])

    def acknowledge(self, taken: Sequence[int]) -> None:
        """See :class:`Postbox`; one round trip."""
        tags = [self._name(i) for i in taken]
        if tags:
            with self._redis.pipeline(transaction=True) as pipe:
                pipe.zrem(self._unacked[1], *tags)
                pipe.hdel(self._unacked[0], *tags)
                pipe.execute()

    def _name(self, position: int) -> str:
        return f"{self._tag}{position + 1}"


class BrokerBox:
    """A queue of any broker, message by message. What a dead process held is given back by the broker."""

    def begin(self) -> str:
        """See :class:`Postbox`."""
        self._messages.clear()
        return ""

    def __init__(self, channel: Any) -> None:
        self._channel = channel
        self._messages: list[Any] = []

    def take(self, queue: str, most: int, share: int) -> list[Sealed | None]:
        """See :class:`Postbox`; a round trip for each message. ``share`` cannot be told, and is not kept."""
        taken: list[Sealed | None] = []
        before = len(self._messages)
        while len(taken) < most and (message := self._channel.basic_get(queue, no_ack=False)) is not None:
            body = message.body.encode() if isinstance(message.body, str) else bytes(message.body)
            form = message.content_type, message.content_encoding
            properties = {**message.properties, "delivery_info": message.delivery_info}
            self._messages.append(message)
            headers = {**message.headers, "redelivered": (message.delivery_info or {}).get("redelivered")}
            taken.append(Sealed(before + len(taken), headers, properties, body, *form))
        return taken

    def put_back(self, queue: str, taken: Sequence[int], *, tried: bool = False) -> None:
        """See :class:`Postbox`. The broker itself says that they come again."""
        for position in taken:
            self._messages[position].requeue()

    def acknowledge(self, taken: Sequence[int]) -> None:
        """See :class:`Postbox`."""
        for position in taken:
            self._messages[position].ack()


class _Open(threading.local):
    connection: Connection | None = None
    box: Postbox | None = None


_open = _Open()


def open_box(app: Celery) -> Postbox:
    """The postbox of this thread, made when it is first needed and after its connection was lost."""
    connection = _open.connection
    if connection is None or _open.box is None or not connection.connected:
        connection = _open.connection = app.connection_for_read()
        channel = connection.default_channel
        _open.box = RedisBox(channel) if _is_redis(channel) else BrokerBox(channel)
    return _open.box


def bring_back(app: Celery, held: str) -> int:
    """Put back what a process held that is dead; returns how many calls. Raises what Redis raises."""
    with app.connection_for_read() as connection:
        channel = connection.default_channel
        return RedisBox(channel).bring_back(held) if _is_redis(channel) else 0


def _is_redis(channel: Any) -> bool:
    is_redis = isinstance(channel, kombu_redis.Channel)
    return is_redis and channel.ack_emulation and not channel.global_keyprefix


def _tried(raw: bytes) -> bytes:
    payload = orjson.loads(raw)
    return _marked(payload)


def _marked(payload: dict[str, Any]) -> bytes:
    """As kombu marks what it delivers again."""
    payload["headers"]["redelivered"] = True
    payload["properties"].setdefault("delivery_info", {})["redelivered"] = True
    return orjson.dumps(payload)
