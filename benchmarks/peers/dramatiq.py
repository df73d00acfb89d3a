"""Dramatiq: a process to each core with 8 threads, results in Redis, read in a pipeline."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

from benchmarks.peers.collect import collect
from benchmarks.peers.driver import Classify, Setup
from benchmarks.peers.work import Answer
from benchmarks.stack import running, running_redis

__all__ = ["serve"]

APP = "benchmarks.peers.apps.dramatiq_app"
#: Threads of a process: the default; 1 and 2 were slower on both kinds of work, and took less memory.
THREADS = 8


@contextmanager
def serve(setup: Setup) -> Iterator[Classify]:
    """A Redis and the workers; they need no waiting for, as a message waits for them."""
    with ExitStack() as stack:
        url = stack.enter_context(running_redis()).replace("redis+socket", "unix")
        os.environ["BENCH_BROKER"] = url
        command = [sys.executable, "-m", "dramatiq", APP, "--processes", str(setup.processes)]
        command += ["--threads", str(THREADS)]
        stack.enter_context(running(command, log=setup.logs / "workers.log", env=setup.env))
        yield _classify


def _classify(paths: Sequence[str], deadline: float) -> list[Answer]:
    from dramatiq.results import ResultFailure

    from benchmarks.peers.apps.dramatiq_app import broker, classify

    backend = broker.get_results_backend()
    messages = {message.message_id: message for message in map(classify.send, paths)}

    def look(ids: Sequence[str]) -> list[Any]:
        pipe = backend.client.pipeline(transaction=False)
        for one in ids:
            pipe.lindex(backend.build_message_key(messages[one]), 0)
        return [None if data is None else unwrapped(data) for data in pipe.execute()]

    def unwrapped(data: bytes) -> Any:
        try:
            return backend.unwrap_result(backend.encoder.decode(data))
        except ResultFailure as exc:
            return str(exc)

    return collect(list(messages), look, deadline)
