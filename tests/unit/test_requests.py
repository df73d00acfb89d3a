"""What the main process makes of a process that died with a ticket, as far as Celery's pool knows of it."""

from __future__ import annotations

import os
import threading
from types import SimpleNamespace
from typing import Any

import pytest

from jobs.tickets import token_of
from worker import requests

DEAD, ALIVE = 7, 8


class Job:
    """What Celery's pool keeps of a message in hand; ``wrote_to`` is the process that it wrote the message to."""

    correlation_id = "ticket"

    def __init__(self, *, accepted_by: int | None = None, wrote_to: int | None = DEAD) -> None:
        self._accepted = accepted_by is not None
        self._worker_pid = accepted_by
        self._write_to = SimpleNamespace(pid=wrote_to) if wrote_to else None

    def ready(self) -> bool:
        """Not yet."""
        return False


def lost(job: Job, monkeypatch: pytest.MonkeyPatch, *, waits: bool = False) -> list[Any]:
    """The jobs that are said to be lost when DEAD has died with its ticket."""
    monkeypatch.setattr(requests, "NOTICE_S", 0.0)
    found: list[Any] = []
    done = threading.Event()
    pool = SimpleNamespace(_cache={1: job}, outbound_buffer=[job] if waits else [])
    pool.mark_as_worker_lost = lambda job, _: found.append(job)

    def call_soon(settle: Any) -> None:
        settle()
        done.set()

    worker = SimpleNamespace(pool=SimpleNamespace(_pool=pool), consumer=SimpleNamespace(call_soon=call_soon))
    requests.settle_lost(worker, token_of("ticket", DEAD))
    assert done.wait(10)
    return found


def test_a_ticket_ends_with_the_process_that_took_it(monkeypatch: pytest.MonkeyPatch) -> None:
    job = Job(accepted_by=DEAD)
    assert lost(job, monkeypatch) == [job]


def test_so_does_one_of_which_the_pool_has_not_read_that_it_was_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    job = Job()
    assert lost(job, monkeypatch) == [job]


def test_a_ticket_that_another_process_has_by_now_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    assert lost(Job(accepted_by=ALIVE, wrote_to=ALIVE), monkeypatch) == []
    assert lost(Job(wrote_to=ALIVE), monkeypatch) == []


def test_a_ticket_that_waits_for_another_process_waits_on(monkeypatch: pytest.MonkeyPatch) -> None:
    assert lost(Job(), monkeypatch, waits=True) == []


def test_a_pool_of_greenlets_has_but_one_process() -> None:
    assert requests.process_of(SimpleNamespace(worker_pid=DEAD)) == DEAD
    assert requests.process_of(SimpleNamespace(worker_pid=id(object()))) == os.getpid()
    assert requests.process_of(SimpleNamespace(worker_pid=None)) == os.getpid()
