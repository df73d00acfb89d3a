"""Where a package is not installed, a worker says in one line which, and ends."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.servers import RedisServer

ROOT = Path(__file__).resolve().parents[2]


def without(package: str, folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """``labelmill-worker`` in an environment that lacks a package."""
    message = f"raise ModuleNotFoundError({f'No module named {package!r}'!r}, name={package!r})"
    (folder / f"{package}.py").write_text(message)
    env = {**os.environ, "PYTHONPATH": str(folder)}
    command = [sys.executable, "-m", "worker", *arguments]
    return subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, check=False, timeout=120)


@pytest.mark.parametrize("pool", ["prefork", "threads", "solo"])
def test_a_worker_whose_decoding_lacks_a_package_ends(pool: str, tmp_path: Path, redis: RedisServer) -> None:
    options = ["--model", "noop", "--pool", pool, "--concurrency", "1", "--broker", redis.broker_url]
    done = without("isal", tmp_path, "serve", *options)
    said = done.stderr + done.stdout
    assert done.returncode == 16
    assert "a worker needs isal; install labelmill[onnx] or labelmill[torch]" in said
    assert "Traceback" not in said


@pytest.mark.parametrize(
    ("command", "extra"),
    [("serve", "onnx] or labelmill[torch"), ("check", "onnx] or labelmill[torch"), ("quantize", "export")],
)
def test_a_command_says_what_it_lacks(command: str, extra: str, tmp_path: Path) -> None:
    done = without("numpy", tmp_path, command, "--help")
    assert (done.returncode, done.stdout) == (16, "")
    assert done.stderr == f"labelmill-worker: {command} needs numpy; install labelmill[{extra}]\n"
