"""Mosec: HTTP, dynamic batching, a process to each core."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager

from benchmarks.peers.driver import Classify, Setup
from benchmarks.peers.http_client import HttpClient, free_port
from benchmarks.stack import running

__all__ = ["serve"]

#: Connections of the client, and the longest wait for a batch to fill, in ms.
CONNECTIONS, WAIT_MS = {"photo": 32, "tiny": 256}, 1


@contextmanager
def serve(setup: Setup) -> Iterator[Classify]:
    """The service, and a client of it."""
    port = free_port()
    command = [sys.executable, "-m", "benchmarks.peers.apps.mosec_app", "--address", "127.0.0.1"]
    command += ["--port", str(port), "--timeout", "10000", "--log-level", "error", "--path", str(setup.folder / "ipc")]
    env = {**setup.env, "BENCH_PROCESSES": str(setup.processes), "BENCH_WAIT_MS": str(WAIT_MS)}
    with running(command, log=setup.logs / "mosec.log", env=env):
        yield HttpClient(port, "/inference", str, list, CONNECTIONS[setup.work])
