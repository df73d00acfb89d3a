"""Plain Celery at its best: solo workers, large prefetch, messages in batches, results with MGET."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import orjson
import redis

from benchmarks.peers.collect import MANY, collect
from benchmarks.peers.driver import Classify, Setup
from benchmarks.peers.work import Answer
from benchmarks.stack import running, running_redis, until

__all__ = ["serve"]

APP = "benchmarks.peers.apps.celery_app"


@contextmanager
def serve(setup: Setup) -> Iterator[Classify]:
    """A Redis, and a solo worker to each core; ``setup.chunk`` images a task."""
    from celery import Celery

    with ExitStack() as stack:
        url = stack.enter_context(running_redis())
        for number in range(setup.processes):
            command = [sys.executable, "-m", "celery", "--quiet", "-A", APP, "worker", "--pool", "solo"]
            command += ["--hostname", f"peer{number}@bench", "--loglevel", "ERROR"]
            command += ["--without-gossip", "--without-mingle", "--without-heartbeat"]
            env = {**setup.env, "BENCH_BROKER": url}
            stack.enter_context(running(command, log=setup.logs / f"worker-{number}.log", env=env))
        app = Celery("bench", broker=url, backend=url, set_as_current=False)
        app.conf.update(broker_transport_options={"priority_steps": [0]})
        until(lambda: len(app.control.ping(timeout=0.5)) == setup.processes, "workers")
        yield Calls(app, url, setup.chunk)


class Calls:
    """Sends and collects, as :class:`benchmarks.celery_apps.Calls` does, and keeps the labels."""

    def __init__(self, app: Any, url: str, chunk: int) -> None:
        self._app, self._chunk = app, chunk
        self._redis = redis.Redis.from_url(url.replace("redis+socket", "unix"))

    def __call__(self, paths: Sequence[str], deadline: float) -> list[Answer]:
        """An answer for each path."""
        parts = [list(paths[at : at + self._chunk]) for at in range(0, len(paths), self._chunk)]
        if self._chunk == 1:
            return collect(self._send("classify_one", [part[0] for part in parts]), self._look, deadline)
        found = collect(self._send("classify_many", parts), self._look, deadline)
        return [one for part, result in zip(parts, found, strict=True) for one in _spread(result, len(part))]

    def _send(self, task: str, arguments: Sequence[Any]) -> list[str]:
        with self._app.producer_pool.acquire(block=True) as producer, producer.batch(MANY):
            send = self._app.send_task
            return [send(f"{APP}.{task}", (argument,), producer=producer).id for argument in arguments]

    def _look(self, ids: Sequence[str]) -> list[Any]:
        values: Any = self._redis.mget([f"celery-task-meta-{one}" for one in ids])
        return [None if value is None else _outcome(orjson.loads(value)) for value in values]


def _outcome(meta: Any) -> Any:
    if meta["status"] == "SUCCESS":
        return meta["result"]
    return f"{meta['result']['exc_type']}: {' '.join(map(str, meta['result']['exc_message']))}"


def _spread(result: Any, many: int) -> list[Answer]:
    return result if isinstance(result, list) else [result] * many
