"""Tickets that got lost, chunks of the dead, and who looks after them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from jobs.ledger import JobRequest
from jobs.reconciler import Reconciler
from jobs.tickets import ENOUGH, Bell
from producer.client import Labelmill
from tests.support.books import LANE, chunk_of
from tests.support.images import POISON_APP, assert_books, ends_of, submit, write_images
from tests.support.servers import RedisServer, eventually, worker_process


@pytest.fixture
def bell(redis: RedisServer) -> Bell:
    return Labelmill(settings=redis.settings).bell


@pytest.fixture
def reconciler(redis: RedisServer, bell: Bell) -> Reconciler:
    return Reconciler(redis.ledger, bell)


def write_chunks(redis: RedisServer, count: int) -> None:
    redis.ledger.create("job", JobRequest("noop"))
    for number in range(count):
        redis.ledger.submit("job", number, chunk_of([str(number)]))
    redis.ledger.seal("job")


def test_tickets_that_only_wait_in_a_long_queue_are_not_rung_again(
    redis: RedisServer, bell: Bell, reconciler: Reconciler
) -> None:
    write_chunks(redis, 300)
    bell.ring(LANE, ENOUGH)
    assert [reconciler.sweep() for _ in range(3)] == [0, 0, 0]
    assert bell.waiting(LANE) == ENOUGH


def test_a_long_queue_needs_no_more_tickets_than_are_enough(
    redis: RedisServer, bell: Bell, reconciler: Reconciler
) -> None:
    write_chunks(redis, 300)
    assert [reconciler.sweep() for _ in range(3)] == [0, ENOUGH, 0]
    assert bell.top_up(LANE, 300) == 0
    assert bell.waiting(LANE) == ENOUGH


def test_lost_tickets_are_rung_again_after_two_looks_and_no_others(
    redis: RedisServer, bell: Bell, reconciler: Reconciler
) -> None:
    write_chunks(redis, 10)
    bell.ring(LANE, 1)
    assert [reconciler.sweep() for _ in range(4)] == [0, ENOUGH - 1, 0, 0]
    redis.client.delete(LANE)
    assert [reconciler.sweep() for _ in range(3)] == [0, ENOUGH, 0]
    assert bell.waiting(LANE) == ENOUGH


def test_a_chunk_of_a_silent_worker_is_rung_at_once(redis: RedisServer, bell: Bell, reconciler: Reconciler) -> None:
    write_chunks(redis, 1)
    redis.ledger.claim(LANE, "token", lease_s=0.001)
    assert eventually(reconciler.sweep) == 1
    assert bell.waiting(LANE) == 1


def test_a_producer_killed_between_a_chunk_and_its_ticket_loses_nothing(redis: RedisServer) -> None:
    write_chunks(redis, 5)
    with worker_process(redis):
        eventually(lambda: redis.ledger.status("job").ended)


def test_all_tickets_lost_in_the_middle_of_a_job_cost_seconds(redis: RedisServer, tmp_path: Path) -> None:
    names = write_images(tmp_path, 400)
    with worker_process(redis, app=POISON_APP, file_roots=[tmp_path], env={"POISON_ITEM_S": "0.002"}):
        job = submit(redis, tmp_path, chunk_size=2)
        eventually(lambda: job.status().done)
        redis.client.delete(LANE)
        assert ends_of(job) == dict.fromkeys(names, "succeeded")
    assert_books(job)


def test_what_waits_long_is_done_with_few_tickets(redis: RedisServer, tmp_path: Path) -> None:
    names = write_images(tmp_path, 1500)
    job = submit(redis, tmp_path, chunk_size=3)
    assert redis.client.llen(LANE) <= ENOUGH
    redis.client.config_resetstat()
    with worker_process(redis, file_roots=[tmp_path]):
        assert len(ends_of(job)) == len(names)
    assert job.status().chunks == 500
    assert redis.client.info("commandstats").get("cmdstat_lpush", {"calls": 0})["calls"] < 100


@pytest.fixture
def two(redis: RedisServer, bell: Bell) -> Iterator[tuple[Reconciler, Reconciler]]:
    pair = Reconciler(redis.ledger, bell, sweep_s=0.05), Reconciler(redis.ledger, bell, sweep_s=0.05)
    for each in pair:
        each.start()
    yield pair
    for each in pair:
        each.stop()


def test_one_of_several_is_elected_and_another_follows_it(
    redis: RedisServer, two: tuple[Reconciler, Reconciler]
) -> None:
    def elected() -> bytes | None:
        return redis.client.get("lm:reconciler")

    first = eventually(elected)
    by_name = {one._name.encode(): one for one in two}
    by_name[first].stop()
    assert eventually(lambda: elected() not in (first, None))
    write_chunks(redis, 1)
    assert eventually(lambda: redis.client.llen(LANE)) == 1


def test_what_a_silent_worker_held_is_taken_back_while_redis_is_full(redis: RedisServer, bell: Bell) -> None:
    write_chunks(redis, 1)
    redis.ledger.claim(LANE, "token", lease_s=0.001)
    redis.client.config_set("maxmemory", 1)
    alone = Reconciler(redis.ledger, bell, sweep_s=0.05)
    alone.start()
    try:
        eventually(lambda: redis.ledger.status("job").request_counts["queued"] == 1)
    finally:
        redis.client.config_set("maxmemory", 0)
        alone.stop()


def test_a_waiting_producer_alone_takes_back_what_a_killed_worker_held(redis: RedisServer, tmp_path: Path) -> None:
    write_images(tmp_path, 4, {0: "SLEEP 600"})
    env = {"LABELMILL_LEASE_S": "1"}
    job = submit(redis, tmp_path, chunk_size=4)
    with worker_process(redis, app=POISON_APP, file_roots=[tmp_path], env=env) as worker:
        eventually(lambda: job.status().request_counts["leased"])
        worker.kill9()
    with job.client.sweeping():
        eventually(lambda: job.status().request_counts["queued"] == 4)
        eventually(lambda: redis.client.llen(LANE))
    assert job.status().recovered == 1
