"""A Redis that comes back without the last second, as with ``appendfsync everysec``; and a job that is forgotten."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, cast

import pytest

from jobs.errors import JobError
from jobs.items import Item
from jobs.ledger import Ledger
from jobs.records import Page
from producer.client import Labelmill
from producer.ids import sent_ids
from tests.support.books import Books
from tests.support.servers import RedisServer, redis_server

IMAGES = 100


@pytest.fixture(scope="module")
def redis() -> Iterator[RedisServer]:
    with redis_server() as server:
        yield server


class Rewound:
    """Numbered images; before one of them the job becomes what it was before another one."""

    base = ""
    unique = True

    def __init__(self, redis: RedisServer, job: str, remember: int, rewind: int) -> None:
        self._redis, self._job = redis.client, f"*job:{job}*"
        self._steps = {remember: self._remember, rewind: self._rewind}
        self._kept: dict[bytes, bytes] = {}

    def __iter__(self) -> Iterator[Item]:
        for number in range(IMAGES + 1):
            self._steps.pop(number, lambda: None)()
            if number < IMAGES:
                yield Item(f"{number}", f"/images/{number}")

    def located(self) -> Iterator[tuple[str, str]]:
        return ((item.custom_id, item.ref) for item in self)

    def _keys(self) -> list[bytes]:
        keys = cast("list[bytes]", self._redis.keys(self._job))
        return [key for key in keys if not key.endswith(b":producer")]

    def _remember(self) -> None:
        self._kept = {key: cast("bytes", self._redis.dump(key)) for key in self._keys()}

    def _rewind(self) -> None:
        self._redis.delete(*self._keys())
        for key, value in self._kept.items():
            self._redis.restore(key, 0, value)


@pytest.mark.parametrize("rewind", [65, IMAGES], ids=["while it is sent", "before it is sealed"])
def test_a_producer_sends_again_what_redis_has_lost(redis: RedisServer, rewind: int) -> None:
    job = Labelmill(settings=redis.settings).open("noop")
    job.sender(chunk_size=10).send(Rewound(redis, job.id, 31, rewind), checked=True)
    assert job.status().sealed
    assert sorted(sent_ids(job.client.ledger, job.id), key=int) == [str(number) for number in range(IMAGES)]
    assert job.audit().problems == ()


class Forgetful(Ledger):
    """Its jobs are forgotten between two looks."""

    def page(self, job: str, **named: Any) -> Page:
        self.delete(job)
        return super().page(job, **named)


def test_results_that_went_while_they_were_read_are_no_end_of_the_job(redis: RedisServer) -> None:
    client = Labelmill(settings=redis.settings)
    books = Books(client.ledger)
    job = client.job(books.job(["a"], job="gone"))
    books.finish_all()
    client.ledger = Forgetful(redis.client)
    with pytest.raises(JobError, match="there is no job"):
        list(job.results())
