"""From Python: the client, its asyncio twin, events, webhooks, and plain Celery, on a real worker."""

from __future__ import annotations

import asyncio
import inspect
import subprocess
import sys
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import orjson
import pytest

import producer
from jobs.errors import JobError, ModelNotServedError
from jobs.items import Item
from jobs.registry import ModelInfo, WorkerInfo
from producer import AsyncJob, AsyncLabelmill, Event, Job, Labelmill
from tests.support.servers import ROOT, RedisServer, eventually, redis_server, worker_process


@pytest.fixture(scope="module")
def redis() -> Iterator[RedisServer]:
    """A Redis with a worker of noop for all of these tests."""
    with redis_server() as server, worker_process(server, concurrency=1):
        yield server


def items(count: int) -> list[Item]:
    return [Item(f"{number}.jpg", f"/{number}.jpg", {"n": number}) for number in range(count)]


def test_a_job_from_python(client: Labelmill) -> None:
    job = client.submit(items(1000), model="noop", top_k=2, metadata={"owner": "ann"})
    found = {result.custom_id: result for result in job.results()}
    assert len(found) == 1000
    assert found["7.jpg"].fields == {"n": 7}
    assert [label["label"] for label in found["7.jpg"].labels or ()] == ["noop-0", "noop-1"]
    status = job.wait(timeout_s=60)
    assert (status.state, status.done, status.metadata) == ("ended", 1000, {"owner": "ann"})
    assert client.job(job.id).audit().is_balanced
    assert job.id in [known.job for known in client.jobs()]
    job.delete()
    with pytest.raises(JobError, match="there is no job"):
        job.status()


def test_names_are_taken_as_they_stand(client: Labelmill, tmp_path: Path) -> None:
    (tmp_path / "a.jpg").touch()
    for images in (tmp_path, str(tmp_path), [tmp_path / "a.jpg"], [str(tmp_path / "*.jpg")]):
        assert client.submit(images, model="noop").wait().done == 1


def test_waiting_has_an_end(client: Labelmill) -> None:
    job = client.submit(items(1), model="nobody")
    with pytest.raises(TimeoutError, match="has not ended after"):
        job.wait(timeout_s=0.01)
    assert job.cancel().request_counts["cancelled"] == 1


def test_a_worker_with_work_in_hand_serves_its_model_and_one_that_ends_does_not(client: Labelmill) -> None:
    states = ("STARTING", "READY", "BUSY", "DEAF", "DRAINING")
    for state in states:
        client.registry.announce(WorkerInfo(state, state, "here", 1, 1, (ModelInfo(f"of-{state}", "sha256:1"),)))
    try:
        assert {m.name for m in client.models()} - {"noop"} == {"of-READY", "of-BUSY"}
        with pytest.raises(ModelNotServedError, match="served there: noop, of-BUSY, of-READY"):
            client.served("of-DEAF", wait_s=0.0)
    finally:
        for state in states:
            client.registry.withdraw(state)


def test_a_pinned_digest_is_taken_by_workers_of_that_file_only(client: Labelmill) -> None:
    (digest,) = {model.digest for model in client.models()}
    client.ledger.sweep()
    job = client.submit(items(10), model="noop", digest=digest)
    assert {(r.model or {})["digest"] for r in job.results()} == {digest}
    other = client.submit(items(10), model="noop", digest="sha256:" + "0" * 64)
    assert client.submit(items(10), model="noop").wait().done == 10
    assert other.status().request_counts["queued"] == 10, "it waits for its own version"
    with pytest.raises(ModelNotServedError, match="served there: sha256:"):
        client.served("noop", "sha256:" + "0" * 64, wait_s=0.0)
    other.cancel()


def test_a_model_of_which_nothing_is_known_still_has_results(client: Labelmill) -> None:
    job = client.submit(items(1), model="ghost")
    held = client.ledger.claim("ghost.bulk", "t", lease_s=60)
    assert held is not None
    client.ledger.finish(held, succeeded=1, failed=0, results=b"[3,5000]", digest="sha256:gone")
    (result,) = job.results()
    assert result.labels == [{"label": "3", "index": 3, "score": 0.5}]
    client.registry.publish_model(ModelInfo("ghost", "sha256:gone", labels=("a", "b", "c", "d")))
    (result,) = job.results()
    assert result.labels == [{"label": "d", "index": 3, "score": 0.5}]


# -- asyncio ---------------------------------------------------------------------------------------


def test_the_asyncio_twin_does_the_same(redis: RedisServer) -> None:
    async def main() -> None:
        async with AsyncLabelmill(settings=redis.settings) as client:
            job = await client.submit(items(500), model="noop")
            found = [result.custom_id async for result in job.results()]
            assert sorted(found) == sorted(item.custom_id for item in items(500))
            assert (await job.status()).ended
            assert [status.state async for status in job.watch()] == ["ended"]
            same = await client.job(job.id)
            assert (await same.wait()).done == 500
            jobs = await asyncio.gather(*(client.submit(items(10), model="noop") for _ in range(20)))
            assert {(await job.wait()).done for job in jobs} == {10}
            with pytest.raises(JobError):
                await client.job("nope")

    asyncio.run(main())


def test_a_loop_that_leaves_early_or_is_cancelled_ends_in_time(redis: RedisServer) -> None:
    async def main() -> None:
        async with AsyncLabelmill(settings=redis.settings) as client:
            job = await client.submit(items(10), model="nobody")

            async def follow() -> None:
                async for _ in job.results():
                    raise AssertionError("nobody works on it")

            following = asyncio.create_task(follow())
            await job.status()
            following.cancel()
            with pytest.raises(asyncio.CancelledError):
                await following
            await job.cancel()
            async for _ in job.results():
                break

    asyncio.run(main())


@pytest.mark.parametrize(("sync", "twin"), [(Job, AsyncJob), (Labelmill, AsyncLabelmill)])
def test_every_call_that_reaches_redis_has_its_twin(sync: type, twin: type) -> None:
    local = {"sender", "reader", "sweeping", "source", "readable", "full_digest", "is_sealed", "patience"}
    public = {name for name, value in vars(sync).items() if inspect.isfunction(value) and not name.startswith("_")}
    assert public - local == {
        name for name, value in vars(twin).items() if callable(value) and not name.startswith("_")
    }
    for name in public - local:
        assert inspect.signature(getattr(twin, name)) == inspect.signature(getattr(sync, name))
        made = getattr(twin, name)
        assert made.__doc__ == getattr(sync, name).__doc__


def test_the_package_shows_what_it_promises_and_imports_it_when_asked() -> None:
    for name in producer.__all__:
        assert getattr(producer, name).__name__ == name
    script = "import sys, producer; assert not {'celery', 'redis', 'torch'} & set(sys.modules), sys.modules"
    subprocess.run([sys.executable, "-c", script], cwd=ROOT, check=True)
    script = "import sys; from producer import Labelmill, open_source; "
    script += "assert not {'celery', 'torch', 'onnxruntime', 'numpy'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", script], cwd=ROOT, check=True)


# -- events and webhooks -----------------------------------------------------------------------------


def test_events_tell_the_life_of_a_job(client: Labelmill) -> None:
    heard: list[Event] = []
    events = client.events(wait_s=0.1)
    assert next(events) is None, "subscribed"
    job = client.submit(items(5), model="noop")
    for event in events:
        heard += [event] if event and event.job == job.id else []
        if heard and heard[-1].state == "ended":
            break
    assert [event.state for event in heard] == ["in_progress", "ended"]
    assert heard[-1].request_counts["succeeded"] == 5


@pytest.fixture
def hook() -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """A real server to be called, and what it was told."""
    told: list[dict[str, Any]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            told.append({**self.headers, "body": orjson.loads(self.rfile.read(int(self.headers["content-length"])))})
            self.send_response(200)
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:
            """Nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    yield f"127.0.0.1:{server.server_port}", told
    server.shutdown()
    server.server_close()
    thread.join()


def test_a_producer_that_waits_calls_the_webhook_of_its_job(
    client: Labelmill, hook: tuple[str, list[dict[str, Any]]]
) -> None:
    host, told = hook
    job = client.submit(items(5), model="noop", webhook=f"http://{host}/done")
    assert job.wait().ended
    assert [call["body"]["data"]["id"] for call in told] == [job.id]
    assert job.status().webhook_state == "delivered"


def test_a_worker_calls_it_when_the_producer_has_gone(hook: tuple[str, list[dict[str, Any]]]) -> None:
    host, told = hook
    env = {"LABELMILL_WEBHOOK_HOSTS": host, "LABELMILL_WEBHOOK_SECRET": "whsec_c2VjcmV0"}
    with redis_server() as redis, worker_process(redis, concurrency=1, env=env):
        job = Labelmill(settings=redis.settings).submit(items(5), model="noop", webhook=f"http://{host}/done")
        eventually(lambda: job.status().webhook_state == "delivered", what="the worker calls")
    (call,) = told
    assert call.get("Webhook-Signature", "").startswith("v1,"), call
    assert "whsec" not in repr(redis.settings)


# -- plain Celery ----------------------------------------------------------------------------------

CANVAS = """
import json
from celery import chain, chord, group
from tasks import app, classify

one = classify.delay("a.jpg", top_k=1)
print(json.dumps([one.get(timeout=60), one.state]))
print(json.dumps(group(classify.s(f"{n}.jpg", model="noop", top_k=1) for n in range(5)).delay().get(timeout=60)))
print(json.dumps(app.AsyncResult(one.id).get(timeout=60)))
follow = classify.si("b.jpg", top_k=1)
print(json.dumps(chain(classify.s("a.jpg", top_k=1), follow).delay().get(timeout=60)))
header = group(classify.s(f"{n}.jpg", top_k=1) for n in range(5))
print(json.dumps(chord(header, classify.si("after.jpg", top_k=1)).delay().get(timeout=60)))
"""


def test_plain_celery_classifies_single_images_in_groups_chains_and_chords(redis: RedisServer) -> None:
    env = {"LABELMILL_BROKER_URL": redis.broker_url, "LABELMILL_MODEL": "noop", "PATH": ""}
    done = subprocess.run(
        [sys.executable, "-c", CANVAS], cwd=ROOT, env=env, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    (one, state), five, again, chained, after = map(orjson.loads, done.stdout.splitlines())
    assert (one["custom_id"], one["status"], one["labels"][0]["label"], state) == (
        "a.jpg",
        "succeeded",
        "noop-0",
        "SUCCESS",
    )
    assert [answer["custom_id"] for answer in five] == [f"{n}.jpg" for n in range(5)]
    assert (again, chained["custom_id"], after["custom_id"]) == (one, "b.jpg", "after.jpg")
