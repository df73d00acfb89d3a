"""A ``labelmill submit`` that was killed or interrupted does not hold up the next one."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from producer.client import Labelmill
from tests.support.cli import spawned
from tests.support.servers import RedisServer, eventually, redis_server

COUNT = 12_000


@pytest.fixture
def redis() -> Iterator[RedisServer]:
    with redis_server() as server:
        yield server


def write_manifest(folder: Path) -> Path:
    manifest = folder / "list.csv"
    with manifest.open("w") as file:
        file.write("path,owner\n")
        file.writelines(f"/data/{number:06}.jpg,{number % 7}\n" for number in range(COUNT))
    return manifest


def total(client: Labelmill) -> int:
    """Images that the job has accepted; 0 while it is not there."""
    return sum(status.request_counts["total"] for status in client.ledger.statuses(["killed"]))


def test_a_killed_producer_holds_up_the_next_one_for_seconds_only(redis: RedisServer, tmp_path: Path) -> None:
    """Here the queue is full and nobody works it off: the producer is killed while it waits."""
    manifest, log = write_manifest(tmp_path), tmp_path / "log"
    command = [
        "submit",
        manifest,
        "--model",
        "noop",
        "--job-id",
        "killed",
        "--force",
        "--by",
        "reference",
        "--chunk-size",
        "100",
    ]
    client = Labelmill(settings=redis.settings)
    with spawned(redis, *command, log=log, LABELMILL_BACKLOG_LIMIT="1000") as process:
        eventually(lambda: "sending waits" in log.read_text() or total(client) > 1000)
        process.kill()
    with spawned(redis, *command, "--detach", log=log) as process:
        assert process.wait(60) == 0, log.read_text()
    status = client.job("killed").status()
    assert (status.sealed, status.request_counts["total"]) == (True, COUNT)
    assert "another producer sends this job" in log.read_text()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_submit_that_is_interrupted_leaves_its_job_to_the_next_one_at_once(
    number: signal.Signals, redis: RedisServer, tmp_path: Path
) -> None:
    manifest, log = write_manifest(tmp_path), tmp_path / "log"
    command = ["submit", manifest, "--model", "noop", "--job-id", "killed", "--force", "--by", "reference"]
    client = Labelmill(settings=redis.settings)
    with spawned(redis, *command, log=log, LABELMILL_BACKLOG_LIMIT="1000") as process:
        eventually(lambda: total(client) > 1000)
        process.send_signal(number)
        assert process.wait(30) == 130
    assert log.read_text().splitlines()[-1] == "labelmill: interrupted"
    assert "the same command with --job-id killed goes on" in log.read_text()
    assert not client.ledger.redis.exists(client.ledger.key("killed", "producer"))
    assert not client.job("killed").status().sealed
