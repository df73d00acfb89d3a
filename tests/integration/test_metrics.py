"""Every documented metric, scraped from a real worker with two processes, is there and moves."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest

from producer.client import Job, Labelmill
from producer.sources import Files
from tests.support.scrape import Scrape, free_port, scrape
from tests.support.servers import RedisServer, WorkerProcess, eventually, worker_process
from worker.export.prepare import prepare

ROOT = Path(__file__).resolve().parents[2]
PHOTOS = ROOT / "examples" / "photos"
MODEL = "efficientnet-lite0"
HISTOGRAMS = ("batch_images", "queue_seconds", "fetch_seconds", "decode_seconds", "predict_seconds", "write_seconds")


def documented() -> dict[str, str]:
    """Kind by name, as ``docs/operations.md`` lists them."""
    text = (ROOT / "docs" / "operations.md").read_text()
    return dict(re.findall(r"^\| `(labelmill_\w+)` \| (counter|gauge|histogram) \|", text, re.MULTILINE))


@pytest.fixture
def port() -> int:
    return free_port()


@pytest.fixture
def many(tmp_path: Path) -> Path:
    """Photographs that take a worker about a second."""
    for i in range(200):
        shutil.copy(PHOTOS / "coffee.jpg", tmp_path / f"{i}.jpg")
    return tmp_path


def submit(redis: RedisServer, folder: Path, *, chunk_size: int = 8) -> Job:
    return Labelmill(settings=redis.settings).submit(Files([folder]), model=MODEL, chunk_size=chunk_size)


def lose_a_lease(worker: WorkerProcess, redis: RedisServer, job: Job) -> None:
    """Have the worker's chunks taken back while it is stopped, and go on."""
    eventually(lambda: job.status().request_counts["leased"] > 0)
    worker.pause()
    eventually(lambda: redis.ledger.sweep()[0])
    worker.resume()


def test_every_documented_metric_is_there_and_moves(redis: RedisServer, many: Path, port: int) -> None:
    env = {"LABELMILL_METRICS_PORT": str(port), "LABELMILL_LEASE_S": "0.4"}
    model = prepare(MODEL)
    with worker_process(redis, model=str(model), concurrency=2, file_roots=[PHOTOS, many], env=env) as worker:
        first = submit(redis, PHOTOS, chunk_size=2)
        first.wait()
        eventually(lambda: counted(scrape(port)) == first.status().done)
        before = scrape(port)
        second = submit(redis, many, chunk_size=100)
        lose_a_lease(worker, redis, second)
        eventually(lambda: scrape(port).value("labelmill_backlog_items", model=MODEL) > 0)
        assert scrape(port).value("labelmill_backlog_seconds", model=MODEL) > 0
        eventually(lambda: scrape(port).value("labelmill_worker_state", state="BUSY"), what="it says that it is busy")
        second.wait()
        total = first.status().done + second.status().done
        after = eventually(lambda: found if counted(found := scrape(port)) >= total else None)
    assert documented().keys() <= {re.sub(r"_(sum|count|bucket)$", "", name) for name in after.names()}
    for name in HISTOGRAMS:
        assert after.value(f"labelmill_{name}_count") > before.value(f"labelmill_{name}_count"), name
        assert after.value(f"labelmill_{name}_sum") > before.value(f"labelmill_{name}_sum"), name
    for name in ("leases_renewed", "leases_lost", "late_finishes", "images"):
        assert after.value(f"labelmill_{name}_total") > before.value(f"labelmill_{name}_total"), name
    assert before.value("labelmill_images_total", status="failed", code="corrupt_image") == 1
    assert before.value("labelmill_worker_state") == after.value("labelmill_worker_state") == 1
    assert before.value("labelmill_worker_processes") == 2
    assert before.value("labelmill_worker_resident_bytes") > 50e6
    assert before.value("labelmill_fleet_workers", model=MODEL) == before.value("labelmill_redis_up") == 1
    digest = redis.registry.serving(MODEL)[0].digest
    assert before.value("labelmill_model_info", model=MODEL, digest=digest) == 1


def counted(found: Scrape) -> float:
    return found.value("labelmill_images_total")


def test_single_calls_that_are_taken_along_are_all_counted(redis: RedisServer, port: int) -> None:
    celery = Labelmill(settings=redis.settings).celery
    calls = [celery.send_task("labelmill.classify", (f"{n}",), {"model": "noop"}, queue="noop.interactive")
             for n in range(60)]  # fmt: skip
    with worker_process(redis, concurrency=1, env={"LABELMILL_METRICS_PORT": str(port)}):
        assert {call.get(timeout=60)["status"] for call in calls} == {"succeeded"}
        found = eventually(lambda: seen if counted(seen := scrape(port)) >= len(calls) else None)
    assert counted(found) == len(calls)
    assert found.value("labelmill_predict_seconds_count", lane="interactive") < len(calls), "some went together"


def test_the_worker_alone_is_still_shown_when_redis_is_gone(redis: RedisServer, port: int) -> None:
    with worker_process(redis, env={"LABELMILL_METRICS_PORT": str(port)}):
        redis.kill9()
        found = scrape(port)
    assert found.value("labelmill_redis_up") == 0
    assert found.value("labelmill_worker_state", state="READY") == 1
    assert "labelmill_backlog_items" not in found.names()


def test_a_taken_port_ends_the_start_with_one_line(redis: RedisServer) -> None:
    env = {"LABELMILL_METRICS_PORT": str(free_port())}
    with worker_process(redis, env=env), worker_process(redis, env=env, wait=False) as second:
        assert second.wait() == 2
        said = [line for line in second.log().splitlines() if line.startswith("labelmill-worker: ")]
    assert len(said) == 1
    assert "LABELMILL_METRICS_PORT" in said[0]
