"""What a benchmark runs on: a Redis of its own, and processes that end with the block."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import redis
from redis.exceptions import RedisError

from jobs.orphans import end_with_parent
from producer.client import Labelmill
from producer.embedded import redis_server

__all__ = ["labelmill", "running", "running_redis", "timed", "until", "used_memory"]

#: Seconds to wait for a process to be ready, or to end.
PATIENCE_S = 120.0


@contextmanager
def running_redis() -> Iterator[str]:
    """A Redis without persistence on a Unix socket; gives its URL in Celery's words."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="lm-bench-")))
        socket = folder / "redis.sock"
        command = [str(redis_server()), "--port", "0", "--unixsocket", str(socket), "--save", "", "--appendonly", "no"]
        stack.enter_context(running([*command, "--dir", str(folder)], log=folder / "redis.log"))
        until(lambda: _answers(socket), "Redis")
        yield f"redis+socket://{socket}"


@contextmanager
def running(
    command: Sequence[str], *, log: Path, env: Mapping[str, str] | None = None
) -> Iterator[subprocess.Popen[bytes]]:
    """A process, and its children, between ``with`` and its end: SIGTERM, and SIGKILL where that does not help."""
    with log.open("wb") as output:
        environment = {**os.environ, **(env or {})}
        process = subprocess.Popen(
            command,
            env=environment,
            stdout=output,
            stderr=output,
            start_new_session=True,
            preexec_fn=end_with_parent,  # noqa: PLW1509 - takes no lock; whatever ends a benchmark, no worker stays
        )
        try:
            yield process
        finally:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(PATIENCE_S)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()


@contextmanager
def labelmill(model: str, *, concurrency: int | None = None, workers: int = 1) -> Iterator[Labelmill]:
    """A Redis, workers of ours that are READY, and a client."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="lm-bench-")))
        url = stack.enter_context(running_redis())
        command = [sys.executable, "-m", "worker", "serve", "--model", model, "--log-level", "WARNING"]
        command += ["--concurrency", str(concurrency or len(os.sched_getaffinity(0)))]
        env = {"LABELMILL_BROKER_URL": url, "LABELMILL_FILE_ROOTS": "/"}
        processes: dict[Path, subprocess.Popen[bytes]] = {}
        for number in range(workers):
            own = {**env, "LABELMILL_STATE_DIR": str(folder / f"state-{number}")}
            (folder / f"state-{number}").mkdir()
            log = folder / f"worker-{number}.log"
            processes[log] = stack.enter_context(running(command, log=log, env=own))
        client = Labelmill(url)
        until(lambda: _lives(processes) and len(client.models()) == workers, f"workers of {model}")
        yield client
        for process in processes.values():  # all at once, and not one after the other
            process.send_signal(signal.SIGTERM)


def until(condition: Callable[[], object], what: str) -> None:
    """Wait for a condition; raises TimeoutError."""
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(f"{what}: not ready after {PATIENCE_S:.0f} s")
        time.sleep(0.005)


def _lives(processes: Mapping[Path, subprocess.Popen[bytes]]) -> bool:
    """True; exits with the words of the one that has ended, by its log."""
    for log, process in processes.items():
        if process.poll() is not None:
            last = log.read_text().strip().rpartition("\n")[2]
            raise SystemExit(f"a worker has ended with exit code {process.returncode}: {last}")
    return True


def timed(call: Callable[[], object]) -> float:
    """Seconds of one call."""
    began = time.perf_counter()
    call()
    return time.perf_counter() - began


def used_memory(client: Labelmill) -> int:
    """Bytes that its Redis uses, as it says itself."""
    info: Any = client.ledger.redis.info("memory")
    return int(info["used_memory"])


def _answers(socket: Path) -> bool:
    try:
        return bool(redis.Redis(unix_socket_path=str(socket)).ping())
    except RedisError:
        return False
