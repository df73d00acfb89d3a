"""BentoML: HTTP, adaptive batching, a worker to each core."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmarks.peers.driver import Classify, Setup
from benchmarks.peers.http_client import HttpClient, free_port
from benchmarks.stack import running

__all__ = ["serve"]

#: Connections of the client.
CONNECTIONS = {"photo": 128, "tiny": 128}


@contextmanager
def serve(setup: Setup) -> Iterator[Classify]:
    """The service, and a client of it."""
    port = free_port()
    command = [str(Path(sys.executable).with_name("bentoml")), "serve", "--host", "127.0.0.1", "--port", str(port)]
    command += ["--quiet", "benchmarks.peers.apps.bentoml_app:Classify"]
    own = {
        "BENCH_PROCESSES": str(setup.processes),
        "BENTOML_HOME": str(setup.folder / "home"),
        "BENTOML_DO_NOT_TRACK": "True",
    }
    with running(command, log=setup.logs / "bentoml.log", env={**setup.env, **own}):
        yield HttpClient(port, "/classify", _body, _answer, CONNECTIONS[setup.work])


def _body(path: str) -> dict[str, list[str]]:
    return {"paths": [path]}


def _answer(reply: list[list[int]]) -> list[int]:
    return reply[0]
