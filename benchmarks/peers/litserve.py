"""LitServe: HTTP, batching, a process to each core behind one server."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager

from benchmarks.peers.driver import Classify, Setup
from benchmarks.peers.http_client import HttpClient, free_port
from benchmarks.stack import running

__all__ = ["serve"]

#: Connections of the client, and the longest wait for a batch to fill, in seconds.
CONNECTIONS, WAIT_S = {"photo": 32, "tiny": 128}, 0.002


@contextmanager
def serve(setup: Setup) -> Iterator[Classify]:
    """The service, and a client of it."""
    port = free_port()
    command = [sys.executable, "-m", "benchmarks.peers.apps.litserve_app"]
    own = {"BENCH_PROCESSES": str(setup.processes), "BENCH_WAIT_S": str(WAIT_S), "BENCH_PORT": str(port)}
    with running(command, log=setup.logs / "litserve.log", env={**setup.env, **own}):
        yield HttpClient(port, "/predict", _body, _answer, CONNECTIONS[setup.work])


def _body(path: str) -> dict[str, str]:
    return {"path": path}


def _answer(reply: dict[str, list[int]]) -> list[int]:
    return reply["labels"]
