"""docs/bulk-jobs.md and docs/python.md: every block is run as it stands, with the default model on a real worker."""

from __future__ import annotations

import csv
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.servers import ROOT, RedisServer, redis_server, worker_process
from worker.export.prepare import prepare


@pytest.fixture(scope="module")
def redis() -> Iterator[RedisServer]:
    """A Redis with a worker of the default model that may read the example photographs."""
    model = str(prepare("efficientnet-lite0", file_format="onnx"))
    roots = [ROOT / "examples" / "photos"]
    with redis_server() as server, worker_process(server, model=model, concurrency=1, file_roots=roots):
        yield server


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Where the commands are run: it has the examples, and takes what they write."""
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    return tmp_path


def blocks(page: str, language: str) -> str:
    found = re.findall(rf"```{language}\n(.*?)```", (ROOT / "docs" / page).read_text(), re.DOTALL)
    assert found
    return "\n".join(found)


def lines(path: Path) -> list[Any]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def env(redis: RedisServer) -> dict[str, str]:
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    values = {"PATH": path, "PYTHONPATH": str(ROOT), "LABELMILL_BROKER_URL": redis.broker_url}
    return {name: value for name, value in os.environ.items() if not name.startswith("LABELMILL_")} | values


def test_every_command_of_the_page_on_bulk_jobs_works(redis: RedisServer, folder: Path) -> None:
    script = "set -euxo pipefail\n" + blocks("bulk-jobs.md", "sh")
    done = subprocess.run(
        ["bash", "-c", script], cwd=folder, env=env(redis), capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr
    labels = {line["custom_id"]: line for line in lines(folder / "labels.jsonl")}
    assert labels["coffee.jpg"]["labels"][0]["label"] == "espresso"
    errors = lines(folder / "errors.jsonl")
    assert [(error["custom_id"], error["error"]["code"]) for error in errors] == [("broken.jpg", "corrupt_image")]
    with (folder / "owners.csv").open(newline="") as file:
        assert {row["custom_id"]: row["owner"] for row in csv.DictReader(file)} == {"1": "ann", "2": "tom"}
    hits = re.search(r"cache\s+(\d+) hits", done.stdout)
    assert hits
    assert int(hits[1]) == len(labels)


def test_every_block_of_the_page_on_python_works(redis: RedisServer, folder: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", blocks("python.md", "python")],
        cwd=folder,
        env=env(redis),
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "espresso" in done.stdout
