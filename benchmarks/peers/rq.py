"""RQ at its best: a pool of SimpleWorkers (no fork for each job), JSON, jobs in batches, results in a pipeline."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import redis

from benchmarks.peers.collect import MANY, collect
from benchmarks.peers.driver import Classify, Setup
from benchmarks.peers.work import Answer
from benchmarks.stack import running, running_redis, until

__all__ = ["classify_one", "serve"]


def classify_one(path: str) -> list[int]:
    """The job: the labels of one image."""
    from benchmarks.peers import work

    return work.classify([path])[0]


@contextmanager
def serve(setup: Setup) -> Iterator[Classify]:
    """A Redis, and a pool with a worker to each core."""
    from rq import Queue, Worker
    from rq.serializers import JSONSerializer

    with ExitStack() as stack:
        url = stack.enter_context(running_redis()).replace("redis+socket", "unix")
        command = [str(Path(sys.executable).with_name("rq")), "worker-pool", "--num-workers", str(setup.processes)]
        command += ["--worker-class", "rq.SimpleWorker", "--serializer", "json", "--url", url, "--quiet", "default"]
        stack.enter_context(running(command, log=setup.logs / "pool.log", env=setup.env))
        connection = redis.Redis.from_url(url)
        until(lambda: Worker.count(connection) == setup.processes, "workers")
        yield Jobs(connection, Queue(connection=connection, serializer=JSONSerializer))


class Jobs:
    """Sends and collects."""

    def __init__(self, connection: Any, queue: Any) -> None:
        self._redis, self._queue = connection, queue

    def __call__(self, paths: Sequence[str], deadline: float) -> list[Answer]:
        """An answer for each path."""
        sent = time.time_ns()  # ids of one's own cost less than uuid4
        ids = [f"{sent}-{number}" for number in range(len(paths))]
        for at in range(0, len(paths), MANY):
            self._send(ids[at : at + MANY], paths[at : at + MANY])
        return collect(ids, self._look, deadline)

    def _send(self, ids: Sequence[str], paths: Sequence[str]) -> None:
        prepare = self._queue.prepare_data
        function = f"{__name__}.classify_one"
        self._queue.enqueue_many(
            [prepare(function, (path,), job_id=one, description="-") for one, path in zip(ids, paths, strict=True)]
        )

    def _look(self, ids: Sequence[str]) -> list[Any]:
        from rq.results import Result
        from rq.serializers import JSONSerializer

        pipe = self._redis.pipeline(transaction=False)
        for one in ids:
            pipe.xrevrange(Result.get_key(one), "+", "-", count=1)
        found: list[Any] = []
        for one, entries in zip(ids, pipe.execute(), strict=True):
            if not entries:
                found.append(None)
                continue
            entry, payload = entries[0]
            result = Result.restore(one, entry.decode(), payload, self._redis, serializer=JSONSerializer)
            is_good = result.type is Result.Type.SUCCESSFUL
            found.append(result.return_value if is_good else str(result.exc_string).strip().rpartition("\n")[2])
        return found
