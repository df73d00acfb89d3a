"""Plain Celery beside us: workers of an app in :mod:`benchmarks.apps`, and how its users send and collect."""

from __future__ import annotations

import os
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import redis
from celery import Celery

from benchmarks.stack import running, running_redis, until

__all__ = ["Calls", "celery_workers"]

#: Messages published in one go; workers wait for the first of them.
MANY = 100
#: Results asked for in one go, the oldest ones: asking for those that are far from done costs the workers' cores.
ASKED = 64
#: Seconds between two looks at results that are not there yet: near the end, and while more are to come than are asked
#: for in one go. Each look takes from the workers' cores, and nobody waits for what lies there meanwhile.
POLL_S, LULL_S = 0.02, 0.1


class Calls:
    """One task an image: sends them in batches, and asks for many results at a time."""

    def __init__(self, app: Celery, task: str, url: str, **options: str) -> None:
        self.app = app
        self._task = task
        self._options = options
        self._redis = redis.Redis.from_url(url.replace("redis+socket", "unix"))

    def run(self, arguments: Sequence[str]) -> float:
        """Seconds from the first message to the last result in hand. Raises RuntimeError where one failed."""
        began = time.perf_counter()
        waiting = self._send(arguments)
        while waiting:
            there = self._results(waiting[:ASKED])
            missing = [task for task, value in zip(waiting[:ASKED], there, strict=True) if value is None]
            if missing:
                time.sleep(LULL_S if len(waiting) > ASKED else POLL_S)
            waiting = missing + waiting[ASKED:]
        return time.perf_counter() - began

    def call(self, argument: str) -> float:
        """Seconds of one call, as its users write it."""
        began = time.perf_counter()
        self.app.send_task(self._task, (argument,), self._options).get(interval=0.001)
        return time.perf_counter() - began

    def _send(self, arguments: Sequence[str]) -> list[str]:
        with self.app.producer_pool.acquire(block=True) as producer, producer.batch(MANY):
            return [self.app.send_task(self._task, (one,), self._options, producer=producer).id for one in arguments]

    def _results(self, tasks: Sequence[str]) -> list[bytes | None]:
        keys = [f"celery-task-meta-{task}" for task in tasks]
        values: Any = self._redis.mget(keys)
        found = [key for key, value in zip(keys, values, strict=True) if value is not None]
        if any(value and b'"FAILURE"' in value for value in values):
            raise RuntimeError("a call failed")
        if found:
            self._redis.delete(*found)
        return list(values)


@contextmanager
def celery_workers(app: str, model: str, *, pool: str, warm: str) -> Iterator[Calls]:
    """As many processes as cores: solo workers, or one prefork worker. ``warm`` is an argument that loads the model."""
    module = f"benchmarks.apps.{app}"
    cores = len(os.sched_getaffinity(0))
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="lm-bench-")))
        url = stack.enter_context(running_redis())
        for number in range(cores if pool == "solo" else 1):
            command = [sys.executable, "-m", "celery", "--quiet", "-A", module, "worker", "--pool", pool]
            command += ["--concurrency", str(cores), "--hostname", f"{app}{number}@bench", "--loglevel", "ERROR"]
            command += ["--without-gossip", "--without-mingle", "--without-heartbeat"]
            env = {"BENCH_BROKER": url, "BENCH_MODEL": model}
            stack.enter_context(running(command, log=folder / f"worker-{number}.log", env=env))
        celery = Celery("bench", broker=url, backend=url, set_as_current=False)
        celery.conf.update(broker_transport_options={"priority_steps": [0]})
        client = Calls(celery, f"{module}.classify", url)
        until(lambda: len(celery.control.ping(timeout=0.5)) == (cores if pool == "solo" else 1), app)
        client.run([warm] * 8 * cores)
        yield client
