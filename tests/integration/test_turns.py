"""A ticket's turn in a lane: it goes on from chunk to chunk, and ends where something else has waited."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from producer.client import Labelmill
from tests.support.images import POISON_APP, ends_of, submit, write_images
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


def test_a_single_call_is_answered_between_two_chunks_of_a_turn(redis: RedisServer, gated: Path) -> None:
    job = submit(redis, gated, chunk_size=1)
    begun(gated, 0)
    (gated.parent / "single.jpg").write_text("GOOD\n")
    arguments = [str(gated.parent / "single.jpg")]
    call = job.client.celery.send_task("labelmill.classify", arguments, {"model": "noop"}, queue="noop.interactive")
    open_gate(gated, 0)
    assert call.get(timeout=60)["status"] == "succeeded"
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


def test_a_turn_has_many_chunks_where_nobody_else_waits(redis: RedisServer, tmp_path: Path) -> None:
    write_images(tmp_path, 40)
    job = submit(redis, tmp_path, chunk_size=1)
    with worker_process(redis, concurrency=1, file_roots=[tmp_path]):
        assert set(ends_of(job).values()) == {"succeeded"}
    entries = redis.client.xrange(redis.ledger.key(job.id, "results"))
    turns = {fields[b"t"] for _, fields in entries}
    assert len(entries) == 40
    assert len(turns) < 20
