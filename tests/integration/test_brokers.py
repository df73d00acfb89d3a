"""Brokers other than one plain Redis: RabbitMQ for the tickets, and a Redis that fails over."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image

from jobs.answers import BehindSentinels
from jobs.settings import Settings
from producer.client import Labelmill
from producer.sources import Files
from tests.support.debian import SentinelGroup, rabbitmq, sentinels
from tests.support.servers import RedisServer, eventually, worker_process
from worker.postbox import RedisBox, open_box

pytestmark = pytest.mark.debian


@pytest.fixture
def rabbit() -> Iterator[str]:
    with rabbitmq() as url:
        yield url


@pytest.fixture
def group() -> Iterator[SentinelGroup]:
    with sentinels() as started:
        yield started


@pytest.fixture
def many(tmp_path: Path) -> Path:
    data = tmp_path / "0.png"
    Image.new("RGB", (8, 8), "red").save(data)
    for i in range(1, 500):
        (tmp_path / f"{i}.png").hardlink_to(data)
    return tmp_path


def test_rabbitmq_carries_the_tickets_and_redis_the_ledger(rabbit: str, redis: RedisServer, many: Path) -> None:
    settings = Settings(broker_url=rabbit, ledger_url=redis.broker_url)
    env = {"LABELMILL_BROKER_URL": rabbit, "LABELMILL_LEDGER_URL": redis.broker_url}
    client = Labelmill(settings=settings)
    early = client.submit(Files([many]), model="noop", chunk_size=5)
    with worker_process(redis, file_roots=[many], env=env) as worker:
        late = client.submit(Files([many]), model="noop", chunk_size=5)
        for job in (early, late):
            found = [result.custom_id for result in job.results()]
            assert len(found) == len(set(found)) == 500
        single = client.celery.send_task("labelmill.classify", ("0.png",), {"model": "noop"}, queue="noop.interactive")
        assert single.get(timeout=30)["status"] == "succeeded"
        worker.terminate()
        assert worker.wait() == 0


def test_a_worker_that_is_killed_loses_nothing_on_rabbitmq(rabbit: str, redis: RedisServer, many: Path) -> None:
    settings = Settings(broker_url=rabbit, ledger_url=redis.broker_url)
    env = {"LABELMILL_BROKER_URL": rabbit, "LABELMILL_LEDGER_URL": redis.broker_url}
    job = Labelmill(settings=settings).submit(Files([many]), model="noop", chunk_size=1)
    with worker_process(redis, file_roots=[many], env=env, wait=False) as first:
        eventually(lambda: job.status().done > 0)
        first.kill9()
    assert not job.status().ended
    with worker_process(redis, file_roots=[many], env=env):
        found = [result.custom_id for result in job.results()]
    assert len(found) == len(set(found)) == 500


def test_no_image_is_lost_when_redis_fails_over_in_the_middle_of_a_job(group: SentinelGroup, many: Path) -> None:
    env = {"LABELMILL_SENTINEL_MASTER": group.settings.sentinel_master}
    client = Labelmill(settings=group.settings)
    job = client.submit(Files([many]), model="noop", chunk_size=1)
    assert client.ledger.redis.wait(1, 5000) == 1, "the replica has all that was submitted"
    with worker_process(group, file_roots=[many], env=env, concurrency=1, wait=False):
        eventually(lambda: job.status().done > 0)
        group.kill_master()
        status = job.wait()
        assert group.master() == group.ports[1]
        found = [result.custom_id for result in job.results()]
    assert status.request_counts["succeeded"] == len(found) == len(set(found)) == 500


def test_single_calls_are_answered_through_sentinels(group: SentinelGroup, many: Path) -> None:
    env = {"LABELMILL_SENTINEL_MASTER": group.settings.sentinel_master}
    app = Labelmill(settings=group.settings).celery
    assert type(app.backend) is BehindSentinels
    calls = [app.send_task("labelmill.classify", (f"{n}.png",), {"model": "noop"}) for n in range(20)]
    with worker_process(group, file_roots=[many], env=env, concurrency=1, wait=False):
        assert {call.get(timeout=60)["status"] for call in calls} == {"succeeded"}


def test_calls_are_taken_along_and_what_is_none_is_dropped_behind_sentinels(group: SentinelGroup, many: Path) -> None:
    env = {"LABELMILL_SENTINEL_MASTER": group.settings.sentinel_master}
    app = Labelmill(settings=group.settings).celery
    assert isinstance(open_box(app), RedisBox)
    group.client.lpush("noop.interactive", b"", b"\xff", b"[1]", b'{"headers": {}}')
    calls = [app.send_task("labelmill.classify", (f"{n}.png",), {"model": "noop"}) for n in range(50)]
    with worker_process(group, file_roots=[many], env=env, concurrency=1, wait=False) as worker:
        assert {call.get(timeout=60)["status"] for call in calls} == {"succeeded"}
        assert worker.log().count("was dropped") == 4
        eventually(lambda: group.client.hlen("unacked") == 0)
