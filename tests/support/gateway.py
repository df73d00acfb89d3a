"""A real gateway for tests: ``labelmill gateway`` in a process of its own, on a free port."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import requests

from tests.support.servers import ProcessGroup, RedisServer, eventually

__all__ = ["GatewayProcess", "gateway"]

#: Seconds that one request may take on a machine with other work to do.
PATIENCE_S = 60.0


class GatewayProcess(ProcessGroup):
    """A gateway; ``url`` is where it serves."""

    url = ""

    def wait_ready(self) -> None:
        """Wait until it says where it serves; an AssertionError with its own words where it ends instead."""
        self.url = eventually(self._address, what="the gateway serves")

    @property
    def port(self) -> int:
        """Where it listens, on 127.0.0.1."""
        return int(self.url.rpartition(":")[2])

    def request(self, method: str, path: str, **options: Any) -> requests.Response:
        """One request on a connection of its own."""
        return requests.request(method, self.url + path, timeout=PATIENCE_S, **options)

    def get(self, path: str, **options: Any) -> requests.Response:
        """One GET."""
        return self.request("GET", path, **options)

    def post(self, path: str, **options: Any) -> requests.Response:
        """One POST."""
        return self.request("POST", path, **options)

    def _address(self) -> str:
        assert self.process.poll() is None, f"the gateway ended with {self.process.returncode}:\n{self.log()}"
        found = re.search(r" at (http://\S+) ", self.log())
        return found[1] if found else ""


@contextmanager
def gateway(
    *options: str,
    redis: RedisServer | None = None,
    model: str = "noop",
    env: Mapping[str, str] | None = None,
) -> Iterator[GatewayProcess]:
    """A gateway for the block, on ``redis`` or with the embedded pair; ended by SIGTERM as an operator does."""
    folder = Path(tempfile.mkdtemp(prefix="lm-test-"))
    values = {"LABELMILL_MODEL": model, "LABELMILL_WEB_PROCESSES": "1", **(env or {})}
    if redis:
        values["LABELMILL_BROKER_URL"] = redis.broker_url
    command = [sys.executable, "-m", "producer", "gateway", "--port", "0", *options]
    process = GatewayProcess(command, log=folder / "gateway.log", env=values)
    try:
        process.wait_ready()
        yield process
    finally:
        process.terminate()
        try:
            process.wait()
        except subprocess.TimeoutExpired:
            process.kill9()
        shutil.rmtree(folder, ignore_errors=True)
