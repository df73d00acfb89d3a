"""Tickets: the Celery messages that tell a worker that a lane has chunks for it.

A ticket names its lane and no chunk: whoever takes it has a turn there, and claims one chunk after the other in the
ledger until its time is up, nothing is left, or something else waits that goes first. So all tickets of a lane are
equal, a lost one is seen by counting, one too many finds nothing and costs nothing, and a few are enough: whoever
takes one while chunks wait sees to it that others find one, too.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from amqp.exceptions import ChannelError
from celery import Celery
from kombu.exceptions import OperationalError
from redis.exceptions import RedisError

from jobs.errors import BrokerUnavailableError

__all__ = ["ENOUGH", "TICKET_TASK", "Bell", "token_of"]

TICKET_TASK = "labelmill.ticket"
#: Tickets of one lane that need to wait at most. With whoever takes one putting another there, a fleet of any size is
#: busy after a few rounds.
ENOUGH = 4
#: Tickets that one call publishes at most, so that a sweep stays short.
MAX_BURST = 500
#: Of this worker, whose processes are forked off it.
_RUN = secrets.token_hex(4)
#: AMQP's reply code for a queue that is not there.
_NOT_FOUND = 404


def token_of(ticket: str, pid: int | None) -> str:
    """The token of the leases under which a process works on a ticket, by the id of its message.

    Celery gives a ticket to another process where one died so early that it does not know whether it had it. What is
    said of the one must not be taken for the other's, be it in another container, where process ids are the same.
    """
    return f"{ticket}/{_RUN}.{pid}"


class Bell:
    """Publishes tickets and counts those that wait."""

    def __init__(self, app: Celery) -> None:
        self.app = app

    def ring(self, lane: str, times: int = 1) -> None:
        """Publish tickets onto a lane. Raises :class:`BrokerUnavailableError`; a repeat does no harm."""
        with self._producer() as producer:
            for _ in range(min(times, MAX_BURST)):
                self.app.send_task(TICKET_TASK, (lane,), queue=lane, producer=producer, ignore_result=True)

    def top_up(self, lane: str, chunks: int) -> int:
        """Publish the tickets that are lacking for ``chunks`` that wait, :data:`ENOUGH` at most; returns how many.

        Raises :class:`BrokerUnavailableError`.
        """
        missing = max(0, min(chunks, ENOUGH) - self.waiting(lane))
        if missing:
            self.ring(lane, missing)
        return missing

    def waiting(self, lane: str) -> int:
        """How many tickets wait on a lane; one round trip. Raises :class:`BrokerUnavailableError`."""
        return self._count(lambda channel: channel.queue_declare(queue=lane, passive=True).message_count)

    def clear(self, lane: str) -> int:
        """Take away every ticket of a lane; returns how many. Only where nothing waits for them in the ledger.

        Raises :class:`BrokerUnavailableError`.
        """
        return self._count(lambda channel: channel.queue_purge(lane))

    def _count(self, ask: Callable[[Any], int | None]) -> int:
        with self._producer() as producer:
            try:
                return int(ask(producer.channel) or 0)
            except ChannelError as exc:
                if int(exc.reply_code or 0) == _NOT_FOUND:  # an empty queue does not exist on Redis
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
