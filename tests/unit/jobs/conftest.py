"""The ledger on both: fakeredis and the real Redis."""

from __future__ import annotations

from collections.abc import Iterator

import fakeredis
import pytest

from jobs.ledger import Ledger
from tests.support.books import Books
from tests.support.servers import RedisServer, redis_server


@pytest.fixture(scope="session")
def real_redis() -> Iterator[RedisServer]:
    """One real Redis for all of these tests."""
    with redis_server() as server:
        yield server


@pytest.fixture(params=["fakeredis", "redis"])
def ledger(request: pytest.FixtureRequest) -> Ledger:
    """An empty ledger."""
    if request.param == "fakeredis":
        return Ledger(fakeredis.FakeRedis(version=(6, 2)))
    server: RedisServer = request.getfixturevalue("real_redis")
    server.client.flushall()
    return server.ledger


@pytest.fixture
def books(ledger: Ledger) -> Books:
    """The ledger with short hands for tests; see there."""
    return Books(ledger)
