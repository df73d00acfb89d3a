"""Images that harm their worker: what becomes of them and of their neighbours; their deliveries: tests/chaos."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.images import POISON_APP, assert_books, ends_of, submit, write_images
from tests.support.servers import RedisServer, eventually, worker_process

CHUNK = 16
TIME_LIMIT_S = 1
FAST = {"LABELMILL_CHUNK_TIME_LIMIT_S": str(TIME_LIMIT_S)}


def test_a_dead_letter_whose_image_was_mended_succeeds_when_it_is_replayed(redis: RedisServer, tmp_path: Path) -> None:
    names = write_images(tmp_path, 20, {7: "SEGFAULT"})
    with worker_process(redis, app=POISON_APP, file_roots=[tmp_path]):
        job = submit(redis, tmp_path, chunk_size=CHUNK)
        job.wait()
        (letter,) = job.client.ledger.dead_letters(job.id)
        (tmp_path / "0007.jpg").write_text("GOOD\n")
        assert job.client.ledger.replay(job.id, letter.entry, expires_s=600)
        assert ends_of(job) == dict.fromkeys(names, "succeeded")
    assert list(job.client.ledger.dead_letters(job.id)) == []
    assert_books(job)


def test_a_model_that_raises_on_a_batch_fails_only_the_images_it_raises_on(redis: RedisServer, tmp_path: Path) -> None:
    names = write_images(tmp_path, 48, {3: "MODEL", 4: "MODEL", 30: "MODEL"})
    with worker_process(redis, app=POISON_APP, file_roots=[tmp_path]):
        job = submit(redis, tmp_path, chunk_size=CHUNK)
        bad = {"0003.jpg", "0004.jpg", "0030.jpg"}
        assert ends_of(job) == {name: "model_error" if name in bad else "succeeded" for name in names}
    assert assert_books(job).claims == 3


@pytest.mark.parametrize("pool", ["threads", "solo"])
def test_a_thread_that_never_ends_costs_its_image_and_the_worker_begins_again(
    redis: RedisServer, tmp_path: Path, pool: str
) -> None:
    names = write_images(tmp_path, 12, {5: "LOOP"})
    with worker_process(redis, app=POISON_APP, pool=pool, file_roots=[tmp_path], env=FAST) as worker:
        job = submit(redis, tmp_path, chunk_size=2)
        assert ends_of(job) == {name: "time_limit" if name == "0005.jpg" else "succeeded" for name in names}
        assert worker.process.poll() is None
        assert f"ending at once: 1 past {TIME_LIMIT_S} s" in worker.log()
    assert_books(job)


def test_what_dies_beside_a_poison_image_in_one_process_is_not_blamed(redis: RedisServer, tmp_path: Path) -> None:
    names = write_images(tmp_path, 32, {9: "SEGFAULT"})
    env = {"LABELMILL_LEASE_S": "1", "POISON_ITEM_S": "0.01"}
    job = submit(redis, tmp_path, chunk_size=2)
    starts = 0
    while not job.status().ended:  # as a supervisor does
        starts += 1
        assert starts <= 12
        with worker_process(
            redis, app=POISON_APP, pool="threads", concurrency=4, file_roots=[tmp_path], env=env
        ) as one:
            eventually(lambda: one.process.poll() is not None or job.status().ended)
    assert ends_of(job) == {name: "crashed_worker" if name == "0009.jpg" else "succeeded" for name in names}
    assert_books(job)


@pytest.mark.parametrize(
    ("model", "item_s", "batch_size"), [("noop", "0.15", "1"), ("noop", "0.15", "16"), ("noop:10:150", "0", "2")]
)
def test_a_chunk_that_is_only_slow_is_no_poison(
    redis: RedisServer, tmp_path: Path, model: str, item_s: str, batch_size: str
) -> None:
    """Whether decoding takes long, of files that are read one by one or all at once, or the model does."""
    names = write_images(tmp_path, 16)
    env = {**FAST, "POISON_ITEM_S": item_s, "LABELMILL_BATCH_SIZE": batch_size}
    with worker_process(redis, app=POISON_APP, model=model, file_roots=[tmp_path], env=env):
        job = submit(redis, tmp_path, chunk_size=16)
        assert ends_of(job) == dict.fromkeys(names, "succeeded")
    status = assert_books(job)
    assert status.recovered == 0
    assert status.claims > 1
