"""A worker that is up but takes nothing: it says DEAF, and begins again to hear."""

from __future__ import annotations

from pathlib import Path

from tests.support.images import ends_of, submit, write_images
from tests.support.servers import RedisServer, eventually, worker_process

APP = "tests.support.deaf_app"
DEAF_S = {"LABELMILL_DEAF_S": "2"}


def test_a_deaf_worker_says_so_and_connects_anew(redis: RedisServer, tmp_path: Path) -> None:
    names = write_images(tmp_path, 40)
    with worker_process(redis, app=APP, file_roots=[tmp_path], env=DEAF_S) as worker:
        job = submit(redis, tmp_path, chunk_size=4)
        eventually(lambda: worker.state() == "DEAF", what="it says that it is deaf")
        assert ends_of(job) == dict.fromkeys(names, "succeeded")
        eventually(lambda: worker.state() == "READY", what="it says that it hears again")
        assert "idle for" in worker.log()


def test_a_worker_that_stays_deaf_begins_again_as_a_whole(redis: RedisServer, tmp_path: Path) -> None:
    write_images(tmp_path, 8)
    with worker_process(redis, app=APP, file_roots=[tmp_path], env={**DEAF_S, "DEAF_FOR_EVER": "1"}) as worker:
        submit(redis, tmp_path, chunk_size=4)
        eventually(lambda: "still deaf after" in worker.log(), what="it gives up on its consumer")
        eventually(lambda: worker.log().count("READY:") == 2, what="it has begun again")
        assert worker.process.poll() is None


def test_an_idle_worker_is_not_deaf(redis: RedisServer, tmp_path: Path) -> None:
    write_images(tmp_path, 4)
    with worker_process(redis, file_roots=[tmp_path], env={"LABELMILL_DEAF_S": "0.2"}) as worker:
        for number in range(3):
            job = submit(redis, tmp_path, chunk_size=1, job_id=f"job-{number}")
            job.wait()
        assert "DEAF" not in worker.log()
