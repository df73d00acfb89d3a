"""The gateway as a client sees it, through nginx."""

from __future__ import annotations

import io
import json
import threading
import urllib.error
import urllib.request
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.support.servers import eventually

__all__ = ["Gateway", "SentJob", "fetch", "zipped"]


def zipped(image: Path, times: int) -> bytes:
    """An archive with the same picture many times."""
    target, data = io.BytesIO(), image.read_bytes()
    with zipfile.ZipFile(target, "w", zipfile.ZIP_STORED) as archive:
        for number in range(times):
            archive.writestr(f"{number}{image.suffix}", data)
    return target.getvalue()


def fetch(url: str) -> bytes:
    """The body of an answer; empty while nobody answers there."""
    try:
        with urllib.request.urlopen(url, timeout=60) as answer:
            return bytes(answer.read())
    except (urllib.error.URLError, ConnectionError):
        return b""


class SentJob:
    """A job by its id."""

    def __init__(self, gateway: Gateway, job: str) -> None:
        self.gateway = gateway
        self.id = job

    def status(self) -> dict[str, Any]:
        """What the gateway says of it."""
        found: dict[str, Any] = json.loads(self.gateway.get(f"/v1/jobs/{self.id}"))
        return found

    def state(self) -> str:
        """in_progress, ended, ..."""
        return str(self.status()["state"])

    def counts(self) -> dict[str, int]:
        """Its request_counts."""
        found: dict[str, int] = self.status()["request_counts"]
        return found

    def results(self) -> list[dict[str, Any]]:
        """Every result."""
        return [json.loads(line) for line in self.gateway.get(f"/v1/jobs/{self.id}/results").splitlines()]


class Gateway:
    """``http://127.0.0.1:<port>``."""

    def __init__(self, port: int) -> None:
        self.base = f"http://127.0.0.1:{port}"

    def get(self, path: str) -> bytes:
        """The body of an answer."""
        with urllib.request.urlopen(self.base + path, timeout=60) as answer:
            body: bytes = answer.read()
            return body

    def workers(self) -> int:
        """How many workers serve a model; 0 while the gateway is not up."""
        found = fetch(self.base + "/v1/models")
        models = json.loads(found)["models"] if found else []
        return int(models[0]["workers"]) if models else 0

    @contextmanager
    def submit(self, archive: bytes) -> Iterator[SentJob]:
        """Send an archive as a job; the block begins when the job is there, and ends when all of it was sent."""
        request = urllib.request.Request(self.base + "/v1/jobs", archive, {"Content-Type": "application/zip"})
        sender = threading.Thread(target=lambda: urllib.request.urlopen(request, timeout=300).close())
        sender.start()
        jobs = eventually(lambda: json.loads(self.get("/v1/jobs"))["jobs"], what="the job is there")
        yield SentJob(self, jobs[0]["id"])
        sender.join()
