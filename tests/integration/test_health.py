"""What a worker says of its health, over its whole life, with and without Redis."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from producer.client import Labelmill
from producer.sources import Files
from tests.support.cli import labelmill
from tests.support.servers import RedisServer, WorkerProcess, eventually, worker_process

ROOT = Path(__file__).resolve().parents[2]


def health(state_dir: Path, *options: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "worker", "health", *options]
    env = os.environ | {"LABELMILL_STATE_DIR": str(state_dir)}
    return subprocess.run(command, env=env, cwd=ROOT, capture_output=True, text=True, check=False)


@pytest.fixture
def worker(redis: RedisServer, tmp_path: Path) -> Iterator[WorkerProcess]:
    with worker_process(redis, concurrency=1, env={"LABELMILL_STATE_DIR": str(tmp_path)}) as started:
        yield started


def test_a_ready_worker_is_well_and_shows_what_it_serves(worker: WorkerProcess, tmp_path: Path) -> None:
    shown = health(tmp_path, "--json")
    assert shown.returncode == 0
    status = json.loads(shown.stdout)
    assert (status["pid"], status["state"], status["busy"]) == (worker.pid, "READY", 0)
    assert [model["name"] for model in status["models"]] == ["noop"]
    assert f"{worker.pid}: READY, 0 in hand, noop sha256:" in health(tmp_path).stdout


def test_a_worker_with_work_in_hand_is_busy_and_well(worker: WorkerProcess, redis: RedisServer, tmp_path: Path) -> None:
    pool = next(pid for pid in worker.pids() if pid != worker.pid)
    os.kill(pool, 19)  # SIGSTOP: it keeps what it gets
    Labelmill(settings=redis.settings).submit(Files([ROOT / "examples" / "photos"]), model="noop")
    shown = eventually(lambda: done if "BUSY" in (done := health(tmp_path)).stdout else None)
    assert shown.returncode == 0
    eventually(lambda: worker.state() == "BUSY", what="the fleet sees it, too")
    os.kill(pool, 18)  # SIGCONT
    eventually(lambda: worker.state() == "READY")


def test_the_fleet_shows_what_a_worker_computes_and_when_it_last_did(worker: WorkerProcess, redis: RedisServer) -> None:
    before = eventually(worker.info)
    assert (before.rate, before.last_ms) == (0.0, 0)
    client = Labelmill(settings=redis.settings)
    began_ms = time.time() * 1000
    job = client.submit(Files([ROOT / "examples" / "photos"]), model="noop", chunk_size=2)
    job.wait()
    busy = eventually(lambda: found if (found := worker.info()) and found.rate else None, what="it says its rate")
    assert busy.rate > 0
    assert began_ms - 1 <= busy.last_ms <= time.time() * 1000
    header, line = labelmill(redis, "workers").out.splitlines()
    assert "last chunk" in header
    assert " s ago" in line
    (listed,) = labelmill(redis, "workers", "--json").json
    assert listed["last_chunk_at"].startswith("20")
    os.kill(next(pid for pid in worker.pids() if pid != worker.pid), 9)
    client.celery.send_task("labelmill.classify", ("x",), {"model": "noop"}, queue="noop.interactive").get(timeout=30)
    after = eventually(lambda: found if (found := worker.info()) and found.last_ms > busy.last_ms else None)
    assert after.pid == worker.pid, "a single call counts, by the process that replaced the dead one"


def test_a_worker_lives_on_without_redis(worker: WorkerProcess, redis: RedisServer, tmp_path: Path) -> None:
    redis.kill9()
    assert health(tmp_path, "--live").returncode == 0


def test_a_worker_that_still_loads_is_alive_and_not_ready(redis: RedisServer, tmp_path: Path) -> None:
    env = {"LABELMILL_STATE_DIR": str(tmp_path)}
    with worker_process(redis, concurrency=1, env=env, wait=False) as worker:
        eventually(lambda: list(tmp_path.glob("worker-*.sock")))
        worker.pause()
        for pid in worker.pids()[1:]:
            os.kill(pid, 9)
        silent = health(tmp_path, "--live")
        assert silent.returncode == 1
        assert f"{worker.pid}: no answer" in silent.stdout


def test_a_killed_worker_leaves_nothing_that_looks_alive(worker: WorkerProcess, tmp_path: Path) -> None:
    worker.kill9()
    gone = health(tmp_path)
    assert (gone.returncode, gone.stdout) == (1, f"no worker answers in {tmp_path}\n")
    assert not list(tmp_path.iterdir())


def test_the_next_worker_removes_what_a_killed_one_left(
    worker: WorkerProcess, redis: RedisServer, tmp_path: Path
) -> None:
    (left,) = tmp_path.glob("worker-*.sock")
    worker.kill9()
    with worker_process(redis, env={"LABELMILL_STATE_DIR": str(tmp_path)}) as other:
        assert not left.exists()
        assert health(tmp_path).returncode == 0
        assert [path.name for path in tmp_path.glob("worker-*.sock")] == [f"worker-{other.pid}.sock"]


def test_a_worker_that_ended_leaves_nothing_behind(worker: WorkerProcess, tmp_path: Path) -> None:
    worker.terminate()
    assert worker.wait() == 0
    assert not list(tmp_path.iterdir())


def test_outside_a_terminal_every_line_is_json_with_the_worker(worker: WorkerProcess, redis: RedisServer) -> None:
    lines = [json.loads(line) for line in worker.log().splitlines()]
    ready = next(line for line in lines if line["message"].startswith("READY"))
    assert ready["worker"].startswith("labelmill-")
    assert ready["level"] == "INFO"
    assert ready["pid"] == worker.pid
