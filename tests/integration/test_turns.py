"""A ticket's turn in a lane: it goes on from chunk to chunk, and ends where something else has waited."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from celery.result import AsyncResult

from jobs.ledger import JobRequest
from producer.client import Job, Labelmill
from tests.support.books import chunk_of
from tests.support.images import POISON_APP, assert_books, ends_of, submit, write_images
from tests.support.servers import RedisServer, eventually, worker_process

GATES = 3


@pytest.fixture
def gated(redis: RedisServer, tmp_path: Path) -> Iterator[Path]:
    """A worker with one process, and a folder of images of which each waits for its gate."""
    folder = tmp_path / "gated"
    folder.mkdir()
    write_images(folder, GATES, {number: f"WAIT {tmp_path}/{number}" for number in range(GATES)})
    with worker_process(redis, app=POISON_APP, concurrency=1, file_roots=[tmp_path]):
        yield folder


def begun(folder: Path, number: int) -> None:
    """Until an image is in hand."""
    eventually((folder.parent / f"{number}.begun").exists)


def open_gate(folder: Path, number: int) -> None:
    (folder.parent / str(number)).touch()


def call(job: Job, path: Path) -> AsyncResult[dict[str, Any]]:
    """Ask for one image beside a job."""
    arguments = [str(path)]
    return job.client.celery.send_task("labelmill.classify", arguments, {"model": "noop"}, queue="noop.interactive")


def test_a_single_call_is_answered_between_two_chunks_of_a_turn(redis: RedisServer, gated: Path) -> None:
    job = submit(redis, gated, chunk_size=1)
    begun(gated, 0)
    (single := gated.parent / "single.jpg").write_text("GOOD\n")
    waits = call(job, single)
    open_gate(gated, 0)
    assert waits.get(timeout=60)["status"] == "succeeded"
    assert job.status().done == 1
    for number in range(1, GATES):
        open_gate(gated, number)
    assert set(ends_of(job).values()) == {"succeeded"}


def test_another_lane_has_its_turn_after_one_chunk(redis: RedisServer, gated: Path) -> None:
    job = submit(redis, gated, chunk_size=1)
    begun(gated, 0)
    other = gated.parent / "other"
    other.mkdir()
    write_images(other, 2)
    client = Labelmill(settings=redis.settings)
    pinned = client.submit(str(other), model="noop", digest=client.models()[0].digest, chunk_size=2)
    open_gate(gated, 0)
    assert set(ends_of(pinned).values()) == {"succeeded"}
    assert job.status().done == 1
    for number in range(1, GATES):
        open_gate(gated, number)
    assert set(ends_of(job).values()) == {"succeeded"}


#: So short that the next chunk is begun before it is known that the results of the last one are there.
SHORT = {"POISON_ITEM_S": "0.0005"}


def test_chunks_that_are_begun_ahead_are_done_once_whoever_is_killed(redis: RedisServer, tmp_path: Path) -> None:
    names = write_images(tmp_path, 3000)
    with worker_process(redis, app=POISON_APP, concurrency=2, file_roots=[tmp_path], env=SHORT) as worker:
        job = submit(redis, tmp_path, chunk_size=4)
        killed: set[int] = set()
        while not job.status().ended and len(killed) < 12:
            done = job.status().done
            victim = next(pid for pid in worker.pids() if pid != worker.pid and pid not in killed)
            os.kill(victim, signal.SIGKILL)
            killed.add(victim)
            eventually(lambda done=done: job.status().done > done + 40 or job.status().ended)  # type: ignore[misc]
        assert ends_of(job) == dict.fromkeys(names, "succeeded")
    assert len(killed) > 3
    status = assert_books(job)
    assert status.claims > status.chunks  # what the killed held for later, too
    assert redis.client.keys("lm:ahead:*") == []


def test_chunks_that_are_begun_ahead_are_done_once_though_redis_goes(redis_aof: RedisServer, tmp_path: Path) -> None:
    names = write_images(tmp_path, 1500)
    with worker_process(redis_aof, app=POISON_APP, concurrency=2, file_roots=[tmp_path], env=SHORT):
        job = submit(redis_aof, tmp_path, chunk_size=4)
        for done in (100, 500, 900):
            eventually(lambda done=done: job.status().done > done)  # type: ignore[misc]
            redis_aof.restart()
        assert ends_of(job) == dict.fromkeys(names, "succeeded")
    assert_books(job)
    assert redis_aof.client.keys("lm:ahead:*") == []


def test_one_of_them_that_ends_its_process_harms_no_other(redis: RedisServer, tmp_path: Path) -> None:
    """Neither the one before, whose results are on their way, nor the one that is held for later."""
    special = {30: "EXIT", 200: "RAISE"}
    names = write_images(tmp_path, 300, special)
    with worker_process(redis, app=POISON_APP, concurrency=1, file_roots=[tmp_path], env=SHORT):
        job = submit(redis, tmp_path, chunk_size=1)
        ends = ends_of(job)
    expected = dict.fromkeys(names, "succeeded") | {names[30]: "crashed_worker"}
    assert {name: end for name, end in ends.items() if expected[name] != end} == {names[200]: ends[names[200]]}
    assert ends[names[200]] != "succeeded"
    status = assert_books(job)
    assert status.recovered == 2 * 3


def test_one_that_cannot_be_read_harms_no_other(redis: RedisServer, tmp_path: Path) -> None:
    names = write_images(tmp_path, 200)
    redis.ledger.create("job", JobRequest("noop"))
    for number, name in enumerate(names):
        chunk = b'{"base":"/","t":"never"}\n"unreadable"' if number == 100 else chunk_of([name], base=str(tmp_path))
        redis.ledger.submit("job", number, chunk)
    redis.ledger.seal("job")
    with worker_process(redis, app=POISON_APP, concurrency=1, file_roots=[tmp_path], env=SHORT):
        job = Job(Labelmill(settings=redis.settings), "job")
        expected = dict.fromkeys(names, "succeeded") | {"unreadable": "invalid_item"}
        del expected[names[100]]
        assert ends_of(job) == expected
    assert job.status().recovered == 3


def test_calls_are_answered_while_chunks_are_begun_ahead(redis: RedisServer, tmp_path: Path) -> None:
    folder = tmp_path / "bulk"
    folder.mkdir()
    names = write_images(folder, 2000)
    (single := tmp_path / "single.jpg").write_text("GOOD\n")
    with worker_process(redis, app=POISON_APP, concurrency=1, file_roots=[tmp_path], env=SHORT):
        job = submit(redis, folder, chunk_size=4)
        answered = 0
        while not job.status().ended:
            assert call(job, single).get(timeout=60)["status"] == "succeeded"
            answered += 1
        assert ends_of(job) == dict.fromkeys(names, "succeeded")
    assert answered > 1
    status = assert_books(job)
    assert (status.recovered, status.late_finishes) == (0, 0)


def test_what_is_held_for_later_waits_again_when_a_call_comes(redis: RedisServer, tmp_path: Path) -> None:
    """A call comes while a gate is shut; of the chunks before, most are short enough for the next one to be held."""
    folder = tmp_path / "bulk"
    folder.mkdir()
    gates = range(10, 100, 10)
    names = write_images(folder, 100, {number: f"WAIT {tmp_path}/{number}" for number in gates})
    (single := tmp_path / "single.jpg").write_text("GOOD\n")
    with worker_process(redis, app=POISON_APP, concurrency=1, file_roots=[tmp_path], env=SHORT):
        job = submit(redis, folder, chunk_size=1)
        for number in gates:
            begun(folder, number)
            waits = call(job, single)
            open_gate(folder, number)
            assert waits.get(timeout=60)["status"] == "succeeded"
        assert ends_of(job) == dict.fromkeys(names, "succeeded")
    status = assert_books(job)
    assert (status.recovered, status.late_finishes) == (0, 0)
    assert status.claims > status.chunks  # some were given back


def test_a_turn_has_many_chunks_where_nobody_else_waits(redis: RedisServer, tmp_path: Path) -> None:
    write_images(tmp_path, 40)
    job = submit(redis, tmp_path, chunk_size=1)
    with worker_process(redis, concurrency=1, file_roots=[tmp_path]):
        assert set(ends_of(job).values()) == {"succeeded"}
    entries = redis.client.xrange(redis.ledger.key(job.id, "results"))
    turns = {fields[b"t"] for _, fields in entries}
    assert len(entries) == 40
    assert len(turns) < 20
