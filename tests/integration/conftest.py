"""Fixtures of the integration tests: a real Redis, and real workers on it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from jobs.ledger import Ledger
from producer.client import Labelmill
from tests.support.servers import RedisServer, WorkerProcess, redis_server, worker_process


@pytest.fixture
def redis() -> Iterator[RedisServer]:
    """A real Redis that keeps nothing on disk."""
    with redis_server() as server:
        yield server


@pytest.fixture
def redis_aof() -> Iterator[RedisServer]:
    """A real Redis that keeps every acknowledged write through a kill."""
    with redis_server(aof=True) as server:
        yield server


@pytest.fixture
def ledger(redis: RedisServer) -> Ledger:
    """The ledger in the real Redis."""
    return redis.ledger


@pytest.fixture
def client(redis: RedisServer) -> Labelmill:
    """A client of the real Redis."""
    return Labelmill(settings=redis.settings)


@pytest.fixture
def noop_worker(redis: RedisServer) -> Iterator[WorkerProcess]:
    """A worker of two processes that serves ``noop``."""
    with worker_process(redis) as worker:
        yield worker
