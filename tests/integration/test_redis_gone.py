"""A Redis that is killed and comes back: everybody waits, says so once, and goes on; what was acknowledged is there."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from jobs.ledger import JobRequest
from jobs.patience import VOICE, Patience
from jobs.ticking import Ticking
from producer.client import Labelmill
from producer.sources import Files
from tests.support.books import chunk_of
from tests.support.images import POISON_APP, assert_books, ends_of, submit, write_images
from tests.support.servers import RedisServer, eventually, worker_process


@pytest.mark.parametrize("pool", ["prefork", "threads"])
def test_a_killed_redis_costs_nothing_but_its_absence(redis_aof: RedisServer, tmp_path: Path, pool: str) -> None:
    names = write_images(tmp_path, 200)
    env = {"POISON_ITEM_S": "0.01"}
    with worker_process(redis_aof, app=POISON_APP, pool=pool, file_roots=[tmp_path], env=env) as worker:
        job = submit(redis_aof, tmp_path, chunk_size=8)
        eventually(lambda: job.status().done)
        redis_aof.kill9()
        eventually(lambda: "waiting for it" in worker.log(), what="the worker says that Redis is gone")
        redis_aof.start()
        assert ends_of(job) == dict.fromkeys(names, "succeeded")
        assert_books(job)
        again = submit(redis_aof, tmp_path, chunk_size=8, job_id="again")
        assert ends_of(again) == dict.fromkeys(names, "succeeded")
        processes = len(worker.pids())
        assert 1 <= worker.log().count("waiting for it") <= processes
        assert worker.log().count("Cannot connect") == 0


def test_every_acknowledged_chunk_outlives_a_kill(redis_aof: RedisServer) -> None:
    ledger = redis_aof.ledger
    ledger.create("job", JobRequest("noop"))
    for number in range(50):
        ledger.submit("job", number, chunk_of([f"item-{number}"]))
    redis_aof.kill9()
    redis_aof.start()
    assert redis_aof.ledger.status("job").request_counts["queued"] == 50
    assert redis_aof.ledger.audit("job").problems == ()


def test_a_producer_waits_in_the_middle_of_sending_and_says_so_once(redis_aof: RedisServer, tmp_path: Path) -> None:
    names = write_images(tmp_path, 300)
    said: list[str] = []
    client = Labelmill(settings=redis_aof.settings, say=said.append)
    job = client.open("noop")
    sender = threading.Thread(target=lambda: job.send(Files([tmp_path]), chunk_size=1))
    sender.start()
    eventually(lambda: job.status().chunks > 20)
    redis_aof.kill9()
    eventually(lambda: said)
    redis_aof.start()
    sender.join()
    assert job.status().request_counts["total"] == len(names)
    gone, back = said  # the ledger or the queue, whichever was asked first
    assert "does not answer" in gone
    assert gone.endswith("waiting for it")
    assert back.startswith("Redis is back after")
    with worker_process(redis_aof, file_roots=[tmp_path]):
        assert ends_of(job) == dict.fromkeys(names, "succeeded")
    assert_books(job)


def test_a_worker_starts_before_its_redis_does(redis_aof: RedisServer, tmp_path: Path) -> None:
    names = write_images(tmp_path, 10)
    redis_aof.kill9()
    with worker_process(redis_aof, file_roots=[tmp_path], wait=False) as worker:
        eventually(lambda: "waiting for it" in worker.log())
        redis_aof.start()
        assert ends_of(submit(redis_aof, tmp_path, chunk_size=4)) == dict.fromkeys(names, "succeeded")


@pytest.mark.parametrize("pool", ["prefork", "threads"])
def test_a_call_taken_before_redis_went_is_answered_when_it_is_back(
    redis_aof: RedisServer, tmp_path: Path, pool: str
) -> None:
    (tmp_path / "slow.jpg").write_text(f"WAIT {tmp_path}/gate\n")
    write_images(tmp_path, 1)
    sender = Labelmill(settings=redis_aof.settings).celery
    sender.conf.result_backend = None  # Celery's own would give up when Redis goes

    def call(image: str) -> str:
        arguments = (str(tmp_path / image),)
        sent = sender.send_task("labelmill.classify", arguments, {"model": "noop"}, queue="noop.interactive")
        return str(sent.id)

    with worker_process(redis_aof, app=POISON_APP, pool=pool, concurrency=2, file_roots=[tmp_path]) as worker:
        slow = call("slow.jpg")
        eventually((tmp_path / "gate.begun").exists)
        redis_aof.kill9()
        eventually(lambda: "waiting for it" in worker.log(), what="the worker says that Redis is gone")
        redis_aof.start()
        eventually(lambda: worker.log().count("Connected to") == 2, what=worker.log)
        (tmp_path / "gate").touch()  # and it is acknowledged over the connection that was lost
        answers = Labelmill(settings=redis_aof.settings).celery
        for task_id in [slow, *(call("0000.jpg") for _ in range(5))]:
            assert answers.AsyncResult(task_id).get(timeout=60)["status"] == "succeeded"
        assert worker.process.poll() is None


def test_a_full_redis_is_waited_for(redis: RedisServer) -> None:
    ledger = redis.ledger
    said: list[str] = []
    ledger.create("job", JobRequest("noop"))
    redis.client.config_set("maxmemory", 1)

    def make_room(text: str) -> None:
        said.append(text)
        redis.client.config_set("maxmemory", 0)

    Patience(say=make_room)(lambda: ledger.submit("job", 0, chunk_of(["a"])))
    assert "maxmemory" in said[0]
    assert ledger.status("job").request_counts["queued"] == 1


def test_one_who_ended_while_it_was_gone_does_not_keep_the_next_one_silent(redis: RedisServer) -> None:
    said: list[str] = []
    patience = Patience(say=said.append)
    redis.kill9()
    looks = Ticking(redis.client.ping, 0.01, name="looks")
    looks.start()
    eventually(lambda: said)
    looks.stop()
    redis.start()
    assert patience(redis.client.ping)
    redis.kill9()
    again = Ticking(redis.client.ping, 0.01, name="looks again")
    again.start()
    eventually(lambda: len(said) > 1)
    redis.start()
    eventually(lambda: len(said) > 2)
    again.stop()
    assert ["is back" in line for line in said] == [False, False, True]


@pytest.fixture(autouse=True)
def own_voice() -> Iterator[None]:
    """What one test made the voice of this process is not the next one's."""
    before = VOICE.say
    yield
    VOICE.say = before
