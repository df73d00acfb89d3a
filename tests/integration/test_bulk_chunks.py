"""How many images go into each chunk, on a real Redis, as workers say how fast they are. No worker is needed."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator

import pytest

from jobs.items import Item
from jobs.registry import ModelInfo, WorkerInfo
from producer import cutting
from producer.client import Labelmill
from producer.job import Job
from producer.sources import Picture, Pictures
from tests.support.servers import RedisServer, eventually


def test_chunks_are_a_tenth_of_a_second_of_what_workers_really_do(
    client: Labelmill, redis: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    def measured(images_per_s: float) -> None:
        look = {"at_s": 0.0, "done": {}, "queued": {}, "rates": {"noop": images_per_s}}
        client.ledger.redis.set(f"{redis.settings.key_prefix}backlog_look", json.dumps(look))

    def numbered() -> Iterator[Picture]:
        for number in range(150):
            if number == 50:
                measured(1000)
            yield Item(f"{number}.jpg", f"/data/{number}.jpg")

    monkeypatch.setattr(cutting, "RESIZE_S", 0.0)
    announce_worker(client)
    job = client.open("noop", job_id="sized", top_k=5)
    job.send(Pictures(numbered(), unique=True))
    assert sizes_of(job) == [10] * 6 + [90]


def test_the_last_chunks_are_shared_by_all_processes(client: Labelmill, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cutting, "AHEAD_S", math.inf)  # however busy this machine is
    announce_worker(client, processes=3)
    job = client.open("noop", job_id="shared", top_k=5)
    job.send(Pictures([Item(f"{number}.jpg", f"/data/{number}.jpg") for number in range(40)]))
    assert sizes_of(job) == [7, 6, 5, 4, 3, 3, 2, 2, 2, 1, 1, 1, 1, 1, 1]


def test_images_that_come_one_by_one_do_not_wait_for_those_that_follow(client: Labelmill) -> None:
    def coming() -> Iterator[Picture]:
        for number in range(20):
            if number == 10:
                eventually(lambda: job.status().request_counts["total"] == 10, what="the first chunk")
            yield Item(f"{number}.jpg", f"/data/{number}.jpg")

    announce_worker(client, processes=3)
    job = client.open("noop", job_id="coming", top_k=5)
    job.send(Pictures(coming(), unique=True))
    assert sizes_of(job) == [10, 10]


def announce_worker(client: Labelmill, *, processes: int = 1) -> None:
    """One whose processes do 100 images a second each."""
    model = ModelInfo("noop", "sha256:00", images_per_s=100.0)
    client.registry.announce(WorkerInfo("w", "READY", "here", 1, processes, (model,)))


def sizes_of(job: Job) -> list[int]:
    """Items of each chunk of a job that nobody works on."""
    payloads = job.client.ledger.redis.hgetall(job.client.ledger.key(job.id, "payload"))
    return [payloads[str(n).encode()].count(b"\n") for n in range(len(payloads))]
