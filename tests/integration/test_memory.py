"""A worker past its memory limit: replaced between two chunks, with nothing lost or run twice."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.images import POISON_APP, assert_books, ends_of, submit, write_images
from tests.support.servers import RedisServer, eventually, worker_process
from worker.drain import EXIT_HARD

LIMIT = {"LABELMILL_MEMORY_LIMIT": "350M"}


@pytest.mark.parametrize("pool", ["prefork", "threads"])
def test_a_worker_past_its_memory_limit_is_replaced_between_chunks(
    redis: RedisServer, tmp_path: Path, pool: str
) -> None:
    names = write_images(tmp_path, 120, dict.fromkeys(range(0, 120, 10), "MEMORY 60"))
    env = {**LIMIT, "POISON_ITEM_S": "0.05"}
    with worker_process(redis, app=POISON_APP, pool=pool, concurrency=1, file_roots=[tmp_path], env=env) as worker:
        before = worker.pids()
        job = submit(redis, tmp_path, chunk_size=2)
        assert ends_of(job) == dict.fromkeys(names, "succeeded")
        log = worker.log()
        if pool == "prefork":
            assert eventually(lambda: set(worker.pids()) - set(before))
        else:
            assert worker.pids() == before
            assert "350 MiB allowed: draining, to begin again" in log
            assert log.count("READY:") > 1
    status = assert_books(job)
    assert (status.claims, status.recovered, status.late_finishes) == (status.chunks, 0, 0)


def test_a_worker_that_is_asked_to_end_while_it_is_replaced_does_not_begin_again(
    redis: RedisServer, tmp_path: Path
) -> None:
    gate = tmp_path / "gate"
    names = write_images(tmp_path, 2, {0: "MEMORY 400", 1: f"WAIT {gate}"})
    with worker_process(redis, app=POISON_APP, pool="threads", concurrency=1, file_roots=[tmp_path], env=LIMIT) as one:
        job = submit(redis, tmp_path, chunk_size=2)
        eventually(lambda: "draining, to begin again" in one.log())
        one.terminate()
        assert one.wait() == EXIT_HARD
        assert one.log().count("READY:") == 1
    gate.touch()
    with worker_process(redis, app=POISON_APP, concurrency=1, file_roots=[tmp_path]):
        assert ends_of(job) == dict.fromkeys(names, "succeeded")
