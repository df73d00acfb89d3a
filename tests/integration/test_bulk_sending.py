"""Sending on a real Redis: resumed, by two at once, by value, held back. No worker is needed."""

from __future__ import annotations

import math
import threading
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from jobs.errors import JobError
from jobs.items import Item
from jobs.ledger import JobRequest, Ledger, Queued
from jobs.reconciler import Reconciler
from jobs.tickets import ENOUGH
from producer import cutting, lock
from producer.client import Labelmill
from producer.ids import sent_ids
from producer.job import Job
from producer.sending import Sender, StoppedError
from producer.sources import Picture, Upload
from tests.support.servers import RedisServer, eventually


class Numbered:
    """So many images; ``stop_at``: the producer dies there."""

    base = "/data"
    unique = True

    def __init__(self, count: int, *, stop_at: int | None = None) -> None:
        self.count = count
        self.stop_at = stop_at

    def __iter__(self) -> Iterator[Picture]:
        for number in range(self.count):
            if number == self.stop_at:
                raise ConnectionResetError("the source is gone")
            yield Item(f"{number}.jpg", f"/data/{number}.jpg")


class Listed(Numbered):
    """All of them are there, and need not come one by one."""

    def ids(self) -> Iterator[tuple[str, str]]:
        for number in range(self.count):
            yield f"{number}.jpg", f"list:{number}"


class Uploads:
    """Images by value, of so many different contents."""

    base = ""
    unique = True

    def __init__(self, count: int, *, contents: int, size: int = 1000) -> None:
        self.count, self.contents, self.size = count, contents, size

    def __iter__(self) -> Iterator[Picture]:
        for number in range(self.count):
            yield Upload(f"{number}.jpg", (number % self.contents).to_bytes(4, "big") * (self.size // 4))

    def ids(self) -> Iterator[tuple[str, str]]:
        for number in range(self.count):
            yield f"{number}.jpg", f"list:{number}"


@pytest.fixture
def job(client: Labelmill) -> Job:
    return client.open("noop", job_id="job-1")


def everything(job: Job) -> list[str]:
    return sorted(sent_ids(job.client.ledger, job.id))


def work_off(job: Job) -> int:
    """Do what a worker does, until nothing waits; returns how many chunks there were."""
    ledger, chunks = job.client.ledger, 0
    while claim := ledger.claim("noop.bulk", f"token-{chunks}-{job.status().claims}", lease_s=60):
        lines = b"\n".join([b"[0,10000]"] * len(claim.chunk.items))
        assert ledger.finish(claim, succeeded=len(claim.chunk.items), failed=0, results=lines, digest="sha256:00")
        chunks += 1
    return chunks


@pytest.fixture
def written(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many chunks were written in each round trip."""
    found: list[int] = []
    submit_all = Ledger.submit_all

    def noted(self: Ledger, job: str, number: int, chunks: Any, *, writer: str) -> list[Queued]:
        found.append(len(chunks))
        return submit_all(self, job, number, chunks, writer=writer)

    monkeypatch.setattr(Ledger, "submit_all", noted)
    return found


def test_chunks_of_what_is_there_are_written_together_and_those_of_a_stream_as_they_come(
    job: Job, client: Labelmill, written: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cutting, "AHEAD_S", math.inf)  # however busy this machine is
    job.send(Listed(60), chunk_size=1)
    assert written == [1, 2, 4, 8, 16, 16, 13]
    written.clear()
    client.open("noop", job_id="job-2").send(Numbered(3), chunk_size=1)
    assert written == [1, 1, 1]
    assert client.ledger.redis.llen("noop.bulk") == 2 + 2


def test_what_was_accepted_of_a_round_trip_counts_where_the_rest_of_it_is_refused(
    job: Job, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another producer takes over between two chunks that were sent together."""
    monkeypatch.setattr(cutting, "AHEAD_S", math.inf)  # however busy this machine is
    submit_all = Ledger.submit_all

    def taken(self: Ledger, job: str, number: int, chunks: Any, *, writer: str) -> list[Queued]:
        answers = submit_all(self, job, number, chunks[:1], writer=writer)
        if len(chunks) > 1:
            self.take_over(job, "another")
            monkeypatch.setattr(Ledger, "submit_all", submit_all)
        return answers

    monkeypatch.setattr(Ledger, "submit_all", taken)
    assert job.send(Listed(100), chunk_size=10) == 100
    assert everything(job) == sorted(f"{n}.jpg" for n in range(100))


def test_what_is_refused_in_the_middle_is_sent_again(job: Job, client: Labelmill, written: list[int]) -> None:
    """A Redis that lost the ledger's scripts answers all of a round trip with that."""

    class Forgotten(Listed):
        def __iter__(self) -> Iterator[Picture]:
            for number, picture in enumerate(super().__iter__()):
                if number == 30:
                    client.ledger.redis.script_flush()
                yield picture

    assert job.send(Forgotten(100), chunk_size=10) == 100
    assert work_off(job) == 10
    assert everything(job) == sorted(f"{n}.jpg" for n in range(100))
    assert max(written) > 1


@pytest.mark.parametrize("images", [Numbered, Listed])
def test_what_was_sent_before_the_producer_died_is_not_sent_again(job: Job, images: type[Numbered]) -> None:
    for stop_at in (35, 70, 70):
        with pytest.raises(ConnectionResetError):
            job.send(images(100, stop_at=stop_at), chunk_size=10)
    assert work_off(job) == 7, "some of it is done already"
    assert job.send(images(100), chunk_size=10) == 30
    assert job.send(images(100), chunk_size=10) == 0
    assert everything(job) == sorted(f"{n}.jpg" for n in range(100))
    assert job.status().request_counts["total"] == 100


def test_a_second_producer_waits_for_the_first_and_sends_nothing_twice(job: Job, client: Labelmill) -> None:
    goes_on = threading.Event()

    class Slow(Numbered):
        def __iter__(self) -> Iterator[Picture]:
            for number, picture in enumerate(super().__iter__()):
                if number == 50:
                    assert goes_on.wait(60)
                yield picture

    first, second = Sender(client, job.id, chunk_size=10), Sender(client, job.id, chunk_size=10)
    first.start(Slow(100))
    eventually(lambda: first.sent == 50 or job.status().chunks == 5)
    second.start(Numbered(100))
    eventually(lambda: second.waiting == "another producer sends this job")
    goes_on.set()
    eventually(lambda: first.join(0.01) and second.join(0.01))
    assert (first.sent, second.sent) == (100, 0)
    assert everything(job) == sorted(f"{n}.jpg" for n in range(100))


@pytest.mark.parametrize("images", [Numbered, Listed])
def test_a_producer_that_was_silent_for_too_long_finds_its_place_again(
    job: Job, client: Labelmill, monkeypatch: pytest.MonkeyPatch, images: type[Numbered]
) -> None:
    """It loses its lock while it is stopped, another one goes on, and both together send every image once."""
    lapsed = threading.Event()
    monkeypatch.setattr(lock.SendLock, "_renew", lambda self, done: done.wait(60))

    class Stopped(images):  # type: ignore[misc, valid-type]
        def __iter__(self) -> Iterator[Picture]:
            for number, picture in enumerate(super().__iter__()):
                if number == 50 and not lapsed.is_set():
                    client.ledger.redis.delete(client.ledger.key(job.id, "producer"))
                    with pytest.raises(ConnectionResetError):
                        Sender(client, job.id, chunk_size=10).send(images(100, stop_at=80))
                    lapsed.set()
                yield picture

    Sender(client, job.id, chunk_size=10).send(Stopped(100))
    assert everything(job) == sorted(f"{n}.jpg" for n in range(100))
    assert job.status().sealed


def test_the_lock_of_a_producer_that_was_killed_lapses(job: Job, client: Labelmill) -> None:
    sending = lock.SendLock(client.ledger, job.id)
    assert sending.acquire()
    ttl_ms = client.ledger.redis.pttl(client.ledger.key(job.id, "producer"))
    assert 0 < int(str(ttl_ms)) <= lock.LAPSE_S * 1000
    assert not lock.SendLock(client.ledger, job.id).acquire()


def test_the_same_bytes_are_uploaded_once_and_go_when_their_last_image_is_done(job: Job, client: Labelmill) -> None:
    job.send(Uploads(100, contents=4), chunk_size=10)
    redis, key = client.ledger.redis, client.ledger.key(job.id, "blobs")
    assert redis.hlen(key) == 4
    assert redis.hgetall(client.ledger.key(job.id, "blobrefs"))
    work_off(job)
    assert not redis.exists(key)
    assert not redis.exists(client.ledger.key(job.id, "blobrefs"))


@pytest.mark.parametrize(("chunk_size", "every"), [(10, 10), (1, 2)])
def test_bytes_that_were_done_with_in_the_meantime_are_sent_again(job: Job, chunk_size: int, every: int) -> None:
    """All chunks of a round trip lack theirs, or only some."""

    class Between(Uploads):
        def __iter__(self) -> Iterator[Picture]:
            for number, picture in enumerate(super().__iter__()):
                if number and number % every == 0:
                    work_off(job)
                yield picture

    assert job.send(Between(40, contents=2), chunk_size=chunk_size) == 40
    work_off(job)
    counts = job.status().request_counts
    assert (counts["succeeded"], counts["failed"]) == (40, 0)


def test_chunks_of_uploads_are_small_so_that_memory_is(
    job: Job, client: Labelmill, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("producer.cutting.CHUNK_BYTES", 5000)
    job.send(Uploads(20, contents=20, size=2000), chunk_size=512)
    assert job.status().chunks == 7


@pytest.mark.parametrize(
    ("setting", "said"), [({"backlog_limit": 50}, "60 images are queued (limit 50)"), ({"redis_memory_mark": 1}, "MiB")]
)
def test_sending_waits_and_says_why(setting: dict[str, int], said: str, redis: RedisServer) -> None:
    client = Labelmill(settings=replace(redis.settings, **setting))  # type: ignore[arg-type]
    job = client.open("noop")
    sender = Sender(client, job.id, chunk_size=1 if "redis_memory_mark" in setting else 10)
    sender.start(Numbered(200))
    eventually(lambda: said in sender.waiting, what=said)
    queued = job.status().request_counts["queued"]
    assert queued < 200
    sender.stop()
    with pytest.raises(StoppedError):
        eventually(lambda: sender.join(0.01))
    assert job.status().request_counts["total"] == queued, "nothing was sent while it waited"


def test_sending_waits_before_redis_is_past_its_own_maxmemory(redis: RedisServer) -> None:
    client = Labelmill(settings=redis.settings)
    job = client.open("noop")
    redis.client.config_set("maxmemory", int(redis.client.info("memory")["used_memory"] * 1.3))
    sender = Sender(client, job.id, chunk_size=1)
    sender.start(Numbered(200))
    eventually(lambda: "(mark " in sender.waiting, what="it waits while Redis still takes writes")
    sender.stop()
    with pytest.raises(StoppedError):
        eventually(lambda: sender.join(0.01))


def test_sending_goes_on_when_the_backlog_is_worked_off(redis: RedisServer) -> None:
    client = Labelmill(settings=replace(redis.settings, backlog_limit=50))
    job = client.open("noop")
    sender = Sender(client, job.id, chunk_size=10)
    sender.start(Numbered(1000))

    def done() -> bool:
        work_off(job)
        return sender.join(0.01)

    eventually(done)
    work_off(job)
    assert job.status().request_counts["succeeded"] == 1000
    assert sender.waiting == ""


def test_an_id_means_one_job(client: Labelmill, job: Job) -> None:
    for options in ({"model": "other"}, {"model": "noop", "top_k": 3}, {"model": "noop", "digest": f"sha256:{1:064}"}):
        with pytest.raises(JobError, match="job-1 is there already, with"):
            client.open(job_id="job-1", **options)  # type: ignore[arg-type]
    assert client.open("noop", job_id="job-1").id == job.id


def test_a_cancelled_job_takes_no_more_images(job: Job, client: Labelmill) -> None:
    class Cancelled(Numbered):
        def __iter__(self) -> Iterator[Picture]:
            for number, picture in enumerate(super().__iter__()):
                if number == 20:
                    job.cancel()
                yield picture

    with pytest.raises(JobError, match="takes no more items"):
        Sender(client, job.id, chunk_size=10).send(Cancelled(100))
    assert job.status().request_counts["cancelled"] == 20


def test_what_lives_on_after_its_job_was_given_up_is_bounded_in_time(client: Labelmill) -> None:
    """A job whose producer never came back: its images expire, then its books and its blobs go."""
    client.ledger.create("job-2", JobRequest("noop", expires_s=0.01, retention_s=0.01))
    sender = Sender(client, "job-2", chunk_size=1)
    sender.stop()
    with pytest.raises(StoppedError):
        sender.send(Uploads(5, contents=5))
    eventually(
        lambda: client.ledger.sweep() and client.ledger.redis.keys("lm:job:job-2*") in ([], [b"lm:job:job-2:producer"])
    )
    eventually(lambda: client.ledger.sweep() and client.ledger.jobs() == [])


def test_a_job_that_was_closed_before_all_was_sent_is_not_taken_for_complete(job: Job) -> None:
    with pytest.raises(ConnectionResetError):
        job.send(Numbered(100, stop_at=50), chunk_size=10)
    job.cancel()
    with pytest.raises(JobError, match="was cancelled before all its images were sent"):
        job.send(Numbered(100))
    assert not job.status().complete


def test_tickets_of_a_job_that_was_cancelled_do_not_stay_for_ever(job: Job, client: Labelmill) -> None:
    job.send(Numbered(100), chunk_size=10)
    rung = client.bell.waiting("noop.bulk")
    reconciler = Reconciler(client.ledger, client.bell)
    assert reconciler.sweep() == 0
    assert client.bell.waiting("noop.bulk") == rung > 0
    job.cancel()
    reconciler.sweep()
    assert client.bell.waiting("noop.bulk") == 0


def test_images_that_come_while_tickets_are_taken_away_are_rung_for(job: Job, client: Labelmill) -> None:
    job.send(Numbered(100), chunk_size=10)
    client.bell.clear("noop.bulk")
    reconciler = Reconciler(client.ledger, client.bell)
    assert (reconciler.sweep(), reconciler.sweep(), client.bell.waiting("noop.bulk")) == (0, ENOUGH, ENOUGH)
