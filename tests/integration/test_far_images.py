"""Images from a server that is far away: those of chunks that are held for later are on their way, too."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from jobs.items import Item, encode_chunk
from jobs.ledger import JobRequest
from producer.client import Job, Labelmill
from tests.support.far import served
from tests.support.images import POISON_APP, assert_books, ends_of, write_images
from tests.support.servers import RedisServer, WorkerProcess, eventually, worker_process

PATIENCE_S = 60
IMAGES = 12


def submit_urls(redis: RedisServer, address: str, names: list[str], *, chunk_size: int = 1) -> Job:
    """A job of these images by URL."""
    client = Labelmill(settings=redis.settings)
    urls = [f"http://{address}/{name}" for name in names]
    return client.submit(urls, model="noop", by="reference", chunk_size=chunk_size)


@contextmanager
def worker(redis: RedisServer, address: str, *, pool: str = "prefork") -> Iterator[WorkerProcess]:
    """A worker with one process that may ask this server."""
    env = {"LABELMILL_URL_HOSTS": address}
    with worker_process(redis, app=POISON_APP, pool=pool, concurrency=1, env=env) as process:
        yield process


@pytest.fixture
def gate(tmp_path: Path) -> Path:
    """Where the first of :func:`gated` waits."""
    return tmp_path / "gate"


@pytest.fixture
def gated(tmp_path: Path, gate: Path) -> list[str]:
    """Images in a folder of their own, of which the first two wait for a gate."""
    (tmp_path / "far").mkdir()
    return write_images(tmp_path / "far", IMAGES, {0: f"WAIT {gate}", 1: f"WAIT {gate}-2"})


def until_more_are_held(job: Job, gate: Path) -> None:
    """Until the first image is in hand, and chunks behind it are held for later."""
    eventually(Path(f"{gate}.begun").exists)
    eventually(lambda: job.status().request_counts["leased"] > 2)


@pytest.mark.parametrize("pool", ["prefork", "threads"])
def test_images_of_later_chunks_are_under_way_with_those_of_the_first(
    redis: RedisServer, tmp_path: Path, pool: str
) -> None:
    names = write_images(tmp_path, 40)
    at_once, asked, lock = threading.Event(), set(), threading.Lock()

    def hold(name: str) -> None:
        with lock:
            asked.add(name)
            if len(asked) >= 8:
                at_once.set()
        assert at_once.wait(PATIENCE_S)  # of four chunks

    with served(tmp_path, hold) as address:
        job = submit_urls(redis, address, names, chunk_size=2)
        with worker(redis, address, pool=pool):
            assert set(ends_of(job).values()) == {"succeeded"}
    status = assert_books(job)
    assert (status.chunks, status.recovered, status.late_finishes) == (20, 0, 0)


def test_a_single_call_goes_first_and_what_was_held_waits_again(
    redis: RedisServer, tmp_path: Path, gate: Path, gated: list[str]
) -> None:
    with served(tmp_path / "far") as address:
        job = submit_urls(redis, address, gated)
        with worker(redis, address):
            until_more_are_held(job, gate)
            arguments, queue = [f"http://{address}/{gated[-1]}"], "noop.interactive"
            call = job.client.celery.send_task("labelmill.classify", arguments, {"model": "noop"}, queue=queue)
            eventually(lambda: redis.client.llen(queue))
            gate.touch()
            assert call.get(timeout=PATIENCE_S)["status"] == "succeeded"
            assert job.status().done == 1
            eventually(Path(f"{gate}-2.begun").exists)
            assert job.status().request_counts["leased"] == 1  # and less is held by the next turn
            Path(f"{gate}-2").touch()
            assert set(ends_of(job).values()) == {"succeeded"}
    assert assert_books(job).recovered == 0


def test_a_worker_that_drains_gives_back_what_it_held(
    redis: RedisServer, tmp_path: Path, gate: Path, gated: list[str]
) -> None:
    with served(tmp_path / "far") as address:
        job = submit_urls(redis, address, gated)
        with worker(redis, address) as process:
            until_more_are_held(job, gate)
            process.terminate()
            eventually(lambda: "DRAINING" in process.log())
            gate.touch()
            assert process.wait() == 0
        counts = job.status().request_counts
        assert (counts["succeeded"], counts["queued"], counts["leased"]) == (1, IMAGES - 1, 0)
        Path(f"{gate}-2").touch()
        with worker(redis, address):
            assert set(ends_of(job).values()) == {"succeeded"}
    assert assert_books(job).recovered == 0


def test_an_image_that_kills_its_process_is_the_only_one_to_blame(redis: RedisServer, tmp_path: Path) -> None:
    names = write_images(tmp_path, IMAGES, {0: "EXIT"})
    with served(tmp_path) as address:
        job = submit_urls(redis, address, names)
        with worker(redis, address):
            ends = ends_of(job)
    assert ends.pop(f"http://{address}/{names[0]}") == "crashed_worker"
    assert set(ends.values()) == {"succeeded"}
    status = assert_books(job)
    assert status.recovered == 3  # deaths, of which each is told of one chunk


def test_a_chunk_that_cannot_be_read_fails_alone(redis: RedisServer, tmp_path: Path) -> None:
    """No producer of ours writes one."""
    names = write_images(tmp_path, IMAGES)
    ledger = redis.ledger
    with served(tmp_path) as address:
        chunks = [encode_chunk([Item(name, f"http://{address}/{name}")]) for name in names]
        chunks.insert(1, b'{"base":"","t":0}\n["odd",5]')
        ledger.create("job", JobRequest("noop"))
        for number, payload in enumerate(chunks):
            ledger.submit("job", number, payload)
        ledger.seal("job")
        with worker(redis, address):
            ends = ends_of(Labelmill(settings=redis.settings).job("job"))
    assert ends.pop("odd") == "model_error"
    assert ends == dict.fromkeys(names, "succeeded")
