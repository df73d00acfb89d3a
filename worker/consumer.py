"""Celery's consumer, but for how it waits (for a broker that is gone, a thread that is done) and for what is no task.

Celery waits 2 s longer for its broker after each attempt, up to 30 s, and logs each of them: after a minute without
Redis it would stand idle for another half. Ours looks each second, and says so once.

A worker that takes a message only when something is free for it (``worker_disable_prefetch``) must know when that is.
A process of the pool tells it through a pipe; a thread tells nobody, and the event loop would look again when its next
timer is due, a second later: see :func:`wake_after`.
"""

from __future__ import annotations

import logging
import math
import os
import random
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from celery.exceptions import CPendingDeprecationWarning
from celery.worker import consumer, state
from celery.worker.state import maybe_shutdown

from jobs.errors import BrokerUnavailableError
from jobs.patience import VOICE

__all__ = ["Consumer", "wake_after"]

log = logging.getLogger(__name__)

# It asks for a setting to be changed, at each loss of the connection; celeryconfig.py says why it is as it is.
warnings.filterwarnings("ignore", category=CPendingDeprecationWarning, module="celery.worker.consumer")


#: How Celery stumbles over what a message holds. All else, such as a lack of memory, is no fault of a message.
ODD = (TypeError, ValueError, LookupError, AttributeError, ArithmeticError, RecursionError)


class _Bed:
    """Where the event loop of this process sleeps: an eventfd that wakes it, -1 before there is one."""

    fd = -1


def wake_after(pool: Any) -> None:
    """Let the event loop look whether it can take another message as soon as a thread of this pool is done with one."""
    apply = pool.on_apply

    def apply_and_wake(*args: Any, **kwargs: Any) -> Any:
        result = apply(*args, **kwargs)
        result.f.add_done_callback(_wake)
        return result

    pool.on_apply = apply_and_wake


def _wake(_: Any) -> None:
    if _Bed.fd >= 0:
        os.eventfd_write(_Bed.fd, 1)


@contextmanager
def _taken_apart() -> Iterator[None]:
    """A lost connection may stumble over a None: kombu takes it apart in several steps, and expects no further use.

    Celery would take that for the end of the worker.
    """
    try:
        yield
    except AttributeError as stumble:
        if stumble.obj is not None:
            raise
        log.debug("a lost connection was used: %r", stumble)


@contextmanager
def _kept(pool: Any) -> Iterator[None]:
    """Celery does not forget what a process of this pool has been given, and has not yet said that it has.

    It would, as the broker gives that to another worker. But the process runs it all the same, and when this worker
    ends, it waits for half a minute until somebody has read what it said of it.
    """
    processes = getattr(pool, "_pool", None)
    aside = getattr(processes, "outbound_buffer", ())
    jobs = tuple(getattr(processes, "_cache", {}).values())
    given = [(job, job._write_to) for job in jobs if job._write_to and not job._accepted and job not in aside]
    for job, _ in given:
        job._accepted = True
    try:
        yield
    finally:
        for job, process in given:
            job._accepted = job._worker_pid is not None  # which the process says with it
            if not job._accepted and not process._is_alive():
                job.discard()


def _are_limits(limits: Any) -> bool:
    """Whether these are what Celery takes for a hard and a soft time limit: seconds, or None."""
    try:
        hard, soft = limits
        return math.isfinite(hard or 0) and math.isfinite(soft or 0)
    except (TypeError, ValueError):
        return False


class Consumer(consumer.Consumer):  # type: ignore[misc]
    """Takes messages from the broker."""

    def __init__(self, on_task_request: Callable[[Any], Any], *args: Any, **kwargs: Any) -> None:
        def on_known_request(request: Any) -> Any:
            if not _are_limits(request.time_limits):  # Celery finds that out when it has a place for it in the pool
                return self._refuse(request, f"time limits {request.time_limits!r}")
            try:
                return on_task_request(request)
            except self._lost():
                raise
            except ODD as exc:
                if release := getattr(self.controller, "_quick_release", None):
                    release()  # the place in the pool that Celery took before
                return self._refuse(request, repr(exc))

        super().__init__(on_known_request, *args, **kwargs)

    def call_soon_ack(self, p: Callable[..., object], logger: Any, errors: Any, *args: Any, **kwargs: Any) -> Any:
        """Acknowledge or reject a message soon; ``errors`` are logged.

        One that was taken over a connection that is lost by now comes again, and is answered again with the same. That
        stumbles over a None at times, see :func:`_taken_apart`, and must not end the worker. ``p`` itself stays what it
        is: Celery knows by it what to run while a worker that ends waits for its processes.
        """
        return super().call_soon_ack(p, logger, (*errors, AttributeError), *args, **kwargs)

    def create_task_handler(self, *args: Any, **kwargs: Any) -> Callable[[Any], Any]:
        """What is called with each message.

        Celery ends over one whose headers or arguments are of no form that it knows, and gives it back before, to end
        the next worker: it is dropped.
        """
        receive = super().create_task_handler(*args, **kwargs)

        def receive_known(message: Any) -> Any:
            try:
                return receive(message)
            except self._lost():
                raise
            except ODD as exc:
                log.warning("a message that is no task was dropped (%s)", repr(exc)[:200])
            if not message.acknowledged:  # Celery rejects one of an unknown task before it stumbles over its id
                message.reject_log_error(log, self.connection_errors)
            return None

        return receive_known

    def _refuse(self, request: Any, why: str) -> None:
        """Drop a request that Celery has made, and cannot run."""
        log.warning("a message that is no task was dropped (%s)", why[:200])
        state.task_ready(request)
        request.reject(requeue=False)

    def _lost(self) -> tuple[type[Exception], ...]:
        """What says that the broker is gone. kombu counts KeyError among these, as which a missing header comes."""
        return tuple(kind for kind in (*self.connection_errors, *self.channel_errors) if kind is not KeyError)

    def register_with_event_loop(self, hub: Any) -> None:
        """The event loop begins, or begins again after a connection was lost."""
        super().register_with_event_loop(hub)
        if _Bed.fd < 0:
            _Bed.fd = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        hub.add_reader(_Bed.fd, os.eventfd_read, _Bed.fd)

    def on_close(self) -> None:
        """The connection is lost, or this worker ends."""
        with _kept(self.pool):
            super().on_close()

    def on_connection_error_after_connected(self, exc: BaseException) -> None:
        """The connection is lost: close it, and go on.

        Closing gives back what was taken and not acknowledged; what could not be given back comes back by itself. The
        second attempt, Celery's own, finds the channel closed.
        """
        try:
            with _taken_apart():
                self.connection.close()
        except (*self.connection_errors, *self.channel_errors) as failure:
            log.debug("the lost connection could not be closed: %r", failure)
        super().on_connection_error_after_connected(exc)

    def ensure_connected(self, conn: Any) -> Any:
        """Wait until the broker answers, or until the worker is asked to end."""
        failed = False

        def say(exc: BaseException, interval: float) -> None:
            nonlocal failed
            failed = True
            VOICE.gone(BrokerUnavailableError(f"the broker at {conn.as_uri()} does not answer ({type(exc).__name__})"))

        wait_s = random.uniform(1.0, 1.5)  # so that a fleet does not come back in one wave
        conn.ensure_connection(
            say, None, interval_start=wait_s, interval_step=0, interval_max=wait_s, callback=maybe_shutdown
        )
        if failed:
            VOICE.back()
        self.first_connection_attempt = False
        return conn
