"""Jobs whose gateway was killed while it took them in: what goes and what stays."""

from __future__ import annotations

import os
import signal
import threading
import time

import psutil
import pytest
import requests

from jobs.errors import JobError
from jobs.items import Item, encode_chunk
from jobs.ledger import Ledger
from jobs.records import JobRequest
from producer.lock import SendLock
from producer.web.unfinished import GRACE_S, Unfinished
from tests.support.gateway import gateway
from tests.support.servers import RedisServer, eventually, worker_process

MARKS = "lm:web:unfinished"


def left_behind(ledger: Ledger, job: str, *, age_s: float = 2 * GRACE_S, sealed: bool = False) -> str:
    """A job that a gateway began to send some time ago."""
    ledger.create(job, JobRequest(model="noop"))
    ledger.take_over(job, "gateway")
    ledger.submit(job, 0, encode_chunk([Item("a.jpg", "blob:x")], base="", sent_ms=0), writer="gateway")
    if sealed:
        ledger.seal(job, writer="gateway")
    ledger.redis.zadd(MARKS, {job: time.time() - age_s})
    return job


def is_there(ledger: Ledger, job: str) -> bool:
    """Whether there is such a job."""
    return bool(ledger.statuses([job]))


def test_what_nobody_sends_any_more_is_deleted_and_its_sender_cannot_complete_it(ledger: Ledger) -> None:
    job = left_behind(ledger, "job-left")
    Unfinished().sweep(ledger)
    assert not is_there(ledger, job)
    with pytest.raises(JobError):
        ledger.seal(job, writer="gateway")
    assert ledger.redis.zcard(MARKS) == 0


def test_what_is_complete_is_sent_still_or_is_young_stays(ledger: Ledger) -> None:
    complete = left_behind(ledger, "job-complete", sealed=True)
    young = left_behind(ledger, "job-young", age_s=0)
    sent = left_behind(ledger, "job-sent")
    lock = SendLock(ledger, sent)
    assert lock.acquire()
    with lock.held():
        Unfinished().sweep(ledger)
    assert all(is_there(ledger, job) for job in (complete, young, sent))
    assert set(ledger.redis.zrange(MARKS, 0, -1)) == {young.encode(), sent.encode()}


def test_a_job_whose_gateway_was_killed_while_it_was_sent_goes_away(redis: RedisServer) -> None:
    crowded = {"LABELMILL_BACKLOG_LIMIT": "10"}
    with worker_process(redis) as worker, gateway(redis=redis) as other:
        worker.pause()
        with gateway(redis=redis, env=crowded) as web:
            files = [("files", (f"{number}.jpg", b"x")) for number in range(3000)]
            sender = threading.Thread(target=_sent_in_vain, args=(web.url, files))
            sender.start()
            (job,) = eventually(lambda: other.get("/v1/jobs").json()["jobs"], what="the job is under way")
            assert redis.client.zrange(MARKS, 0, -1) == [job["id"].encode()]
            for process in (psutil.Process(web.pid), *psutil.Process(web.pid).children(recursive=True)):
                os.kill(process.pid, signal.SIGKILL)
            sender.join()
        eventually(lambda: not other.get("/v1/jobs").json()["jobs"], what="the job is gone")
        worker.resume()


def _sent_in_vain(url: str, files: list[tuple[str, tuple[str, bytes]]]) -> None:
    with pytest.raises(requests.ConnectionError):
        requests.post(f"{url}/v1/jobs", files=files, timeout=60)
