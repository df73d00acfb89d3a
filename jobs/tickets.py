"""Tickets: the Celery messages that tell a worker that a lane has a chunk for it.

A ticket names its lane and no chunk: whoever takes it claims the next chunk of that lane in the ledger. So all
tickets of a lane are equal, a lost one is seen by counting, and one too many finds nothing and costs nothing.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from amqp.exceptions import ChannelError
from celery import Celery
from kombu.exceptions import OperationalError
from redis.exceptions import RedisError

from jobs.errors import BrokerUnavailableError

__all__ = ["TICKET_TASK", "Bell"]

TICKET_TASK = "labelmill.ticket"
#: Tickets that one call publishes at most, so that a sweep stays short.
MAX_BURST = 500
#: AMQP's reply code for a queue that is not there.
_NOT_FOUND = 404


class Bell:
    """Publishes tickets and counts those that wait."""

    def __init__(self, app: Celery) -> None:
        self.app = app

    def ring(self, lane: str, times: int = 1) -> None:
        """Publish tickets onto a lane. Raises :class:`BrokerUnavailableError`; a repeat does no harm."""
        with self._producer() as producer:
            for _ in range(min(times, MAX_BURST)):
                self.app.send_task(TICKET_TASK, (lane,), queue=lane, producer=producer, ignore_result=True)

    def waiting(self, lane: str) -> int:
        """How many tickets wait on a lane; one round trip. Raises :class:`BrokerUnavailableError`."""
        with self._producer() as producer:
            try:
                return int(producer.channel.queue_declare(queue=lane, passive=True).message_count)
            except ChannelError as exc:
                if int(exc.reply_code or 0) == _NOT_FOUND:  # an empty queue does not exist on Redis
                    return 0
                raise

    def clear(self, lane: str) -> int:
        """Take away every ticket of a lane; returns how many. Only where nothing waits for them in the ledger.

        Raises :class:`BrokerUnavailableError`.
        """
        with self._producer() as producer:
            try:
                return int(producer.channel.queue_purge(lane) or 0)
            except ChannelError as exc:
                if int(exc.reply_code or 0) == _NOT_FOUND:
                    return 0
                raise

    @contextmanager
    def _producer(self) -> Iterator[Any]:
        try:
            with self.app.producer_pool.acquire(block=True) as producer:
                yield producer
        except (OperationalError, RedisError, ConnectionError) as exc:
            raise BrokerUnavailableError(f"the broker does not answer: {exc}") from exc
        except AttributeError as exc:
            if exc.obj is not None:
                raise
            # kombu took its connection apart, having found it broken, and looks for what is None now
            raise BrokerUnavailableError("the connection to the broker was lost") from exc
