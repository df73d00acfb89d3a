"""A backup of Redis that was made in the middle of a job, put into another Redis: the job goes on and loses nothing."""

from __future__ import annotations

import shutil
from pathlib import Path

from producer.client import Labelmill
from producer.sources import Files
from tests.support.images import write_images
from tests.support.servers import RedisServer, eventually, redis_server, worker_process


def test_a_snapshot_of_a_job_half_done_is_restored_and_finished(redis_aof: RedisServer, tmp_path: Path) -> None:
    write_images(tmp_path, 60)
    job = Labelmill(settings=redis_aof.settings).submit(Files([tmp_path]), model="noop", chunk_size=1)
    with worker_process(redis_aof, concurrency=1, file_roots=[tmp_path], wait=False) as worker:
        eventually(lambda: job.status().done > 0)
        redis_aof.client.bgsave()
        eventually(lambda: not redis_aof.client.info("persistence")["rdb_bgsave_in_progress"])
        worker.kill9()
    redis_aof.kill9()
    with redis_server() as restored:
        restored.kill9()
        shutil.copy(redis_aof.folder / "dump.rdb", restored.folder)
        restored.start()  # without an append-only file: with one, Redis would not read the snapshot
        restored.client.config_set("appendonly", "yes")
        eventually(lambda: not restored.client.info("persistence")["aof_rewrite_in_progress"])
        again = Labelmill(settings=restored.settings).job(job.id)
        assert again.status().request_counts["total"] == 60
        with worker_process(restored, file_roots=[tmp_path]):
            found = [result.custom_id for result in again.results()]
    assert len(found) == len(set(found)) == 60
