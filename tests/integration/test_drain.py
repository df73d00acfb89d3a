"""The end of a worker: SIGTERM, a second one, and a worker that does not end by itself."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from producer.client import Labelmill
from tests.support.images import POISON_APP, assert_books, ends_of, submit, write_images
from tests.support.servers import PATIENCE_S, RedisServer, eventually, worker_process
from worker.drain import EXIT_HARD, KILL_S

LEAVING_APP = "tests.support.leaving_app"
#: Where single calls of the model wait.
CALLS = "noop.interactive"
DRAIN_S = 1.0


@pytest.mark.parametrize("pool", ["prefork", "threads", "solo"])
def test_sigterm_finishes_what_is_held_and_takes_no_more(redis: RedisServer, tmp_path: Path, pool: str) -> None:
    names = write_images(tmp_path, 60)
    env = {"POISON_ITEM_S": "0.05"}
    with worker_process(redis, app=POISON_APP, pool=pool, file_roots=[tmp_path], env=env) as worker:
        job = submit(redis, tmp_path, chunk_size=4)
        eventually(lambda: job.status().done)
        worker.terminate()
        assert worker.wait() == 0
        assert worker.pids() == []
    left = job.status()
    assert left.request_counts["leased"] == 0
    assert left.request_counts["queued"] > 0
    with worker_process(redis, file_roots=[tmp_path]):
        assert ends_of(job) == dict.fromkeys(names, "succeeded")
    status = assert_books(job)
    assert (status.claims, status.recovered, status.late_finishes) == (status.chunks, 0, 0)


@pytest.mark.parametrize(("pool", "when"), [("prefork", "taken"), ("prefork", "written"), ("threads", "taken")])
def test_a_signal_at_the_moment_at_which_the_pool_gets_a_ticket(
    redis: RedisServer, tmp_path: Path, pool: str, when: str
) -> None:
    names = write_images(tmp_path, 20)
    with worker_process(redis, app=LEAVING_APP, pool=pool, file_roots=[tmp_path], env={"LEAVE_WHEN": when}) as worker:
        job = submit(redis, tmp_path, chunk_size=4)
        assert worker.wait() == 0, worker.log()
    with worker_process(redis, file_roots=[tmp_path]):
        assert ends_of(job) == dict.fromkeys(names, "succeeded")
    status = assert_books(job)
    assert (status.claims, status.recovered, status.late_finishes) == (status.chunks, 0, 0)


def test_a_call_that_a_process_was_given_is_answered_and_not_given_back(redis: RedisServer, tmp_path: Path) -> None:
    write_images(tmp_path, 1)
    calls = Labelmill(settings=redis.settings).celery
    with worker_process(redis, app=LEAVING_APP, file_roots=[tmp_path], env={"LEAVE_WHEN": "written"}) as worker:
        call = calls.send_task("labelmill.classify", (str(tmp_path / "0000.jpg"),), queue=CALLS)
        assert worker.wait() == 0, worker.log()
    assert call.get(timeout=PATIENCE_S)["status"] == "succeeded"
    assert redis.client.llen(CALLS) == 0


def test_a_call_that_is_answered_while_others_drain_does_not_come_again(redis: RedisServer, tmp_path: Path) -> None:
    gates = [tmp_path / "first", tmp_path / "never"]
    write_images(tmp_path, 2, {number: f"WAIT {gate}" for number, gate in enumerate(gates)})
    calls = Labelmill(settings=redis.settings).celery
    with worker_process(redis, app=POISON_APP, file_roots=[tmp_path]) as worker:
        first, _ = [
            calls.send_task("labelmill.classify", (str(tmp_path / f"000{number}.jpg"),), queue=CALLS)
            for number in range(2)
        ]
        for gate in gates:
            eventually(Path(f"{gate}.begun").exists, what=worker.log)
        worker.terminate()
        eventually(lambda: worker.state() == "DRAINING")
        gates[0].touch()
        assert first.get(timeout=PATIENCE_S)["status"] == "succeeded"
        eventually(lambda: redis.client.hlen("unacked") == 1, what="the one that was answered is acknowledged")
        worker.terminate()
        assert worker.wait() == EXIT_HARD


def test_a_pool_that_grows_begins_with_the_fewest(redis: RedisServer) -> None:
    with worker_process(redis, app="tasks", concurrency=2, options=["--autoscale=3,1"]) as worker:
        assert worker.state() == "READY"


@pytest.mark.parametrize("pool", ["prefork", "threads"])
def test_what_does_not_drain_in_time_is_given_back_unharmed(redis: RedisServer, tmp_path: Path, pool: str) -> None:
    write_images(tmp_path, 2, {0: "SLEEP 600"})
    env = {"LABELMILL_DRAIN_TIMEOUT_S": str(DRAIN_S)}
    with worker_process(redis, app=POISON_APP, pool=pool, file_roots=[tmp_path], env=env) as worker:
        job = submit(redis, tmp_path, chunk_size=2)
        eventually(lambda: job.status().request_counts["leased"])
        worker.terminate()
        assert worker.wait(DRAIN_S + 3 * KILL_S) == EXIT_HARD
        assert worker.pids() == []
        assert redis.registry.workers() == []
    status = job.status()
    assert (status.request_counts["queued"], status.request_counts["leased"], status.recovered) == (2, 0, 0)


def test_a_second_sigterm_is_hard_and_loses_nothing(redis: RedisServer, tmp_path: Path) -> None:
    names = write_images(tmp_path, 2, {0: "SLEEP 600"})
    with worker_process(redis, app=POISON_APP, file_roots=[tmp_path]) as worker:
        job = submit(redis, tmp_path, chunk_size=2)
        eventually(lambda: job.status().request_counts["leased"])
        worker.terminate()
        eventually(lambda: worker.state() == "DRAINING")
        worker.terminate()
        assert worker.wait() == EXIT_HARD
    (tmp_path / "0000.jpg").write_text("GOOD\n")
    with worker_process(redis, file_roots=[tmp_path]):
        assert ends_of(job) == dict.fromkeys(names, "succeeded")
    assert assert_books(job).recovered == 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_worker_that_still_loads_its_model_ends_at_once(redis: RedisServer, number: signal.Signals) -> None:
    with worker_process(redis, app=POISON_APP, env={"POISON_SETUP_S": "600"}, wait=False) as worker:
        eventually(lambda: len(worker.pids()) > 2, what="the pool's processes are there")
        worker.process.send_signal(number)
        assert worker.wait() == 0
        assert worker.pids() == []
