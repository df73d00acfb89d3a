"""One contender's driver, from the runner's side: what it is asked, and what its processes are."""

from __future__ import annotations

import os
import select
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import orjson
import psutil

from benchmarks.peers.catalogue import CONTENDERS
from benchmarks.peers.venvs import FOLDER, ROOT, python_of
from benchmarks.peers.work import Answer

__all__ = ["Driver", "Run", "driver", "holds_a_model", "pss_bytes"]

#: Seconds that a run may take, beyond which its answers count as missing.
PATIENCE_S = 120.0
#: Seconds beyond that, in which the driver itself must answer.
MARGIN_S = 30.0
#: Seconds that a contender may take to be ready.
WARM_S = 60.0
#: Seconds between two looks at memory.
SAMPLE_S = 0.2
#: What a process that runs an ONNX model has mapped.
RUNTIME = "onnxruntime_pybind11_state"


@dataclass(frozen=True)
class Run:
    """Seconds from the first send to the last answer, and the answers in the order of the paths."""

    seconds: float
    answers: list[Answer]


class Driver:
    """A driver that answers."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self._process = process
        self._patience_s = 0.0

    def start(self, paths: Sequence[str], patience_s: float = PATIENCE_S) -> None:
        """Have it begin; :meth:`finish` waits for the answers."""
        assert self._process.stdin
        self._patience_s = patience_s
        self._process.stdin.write(orjson.dumps({"paths": list(paths), "patience_s": patience_s}) + b"\n")
        self._process.stdin.flush()

    def finish(self) -> Run:
        """The answers of what was started; raises RuntimeError where the driver died or hangs."""
        assert self._process.stdout
        if not self._is_ready(self._patience_s + MARGIN_S):
            raise RuntimeError(f"its driver said nothing for {self._patience_s + MARGIN_S:.0f} s")
        if not (line := self._process.stdout.readline()):
            raise RuntimeError("its driver ended; see its log")
        return Run(**orjson.loads(line))

    def run(self, paths: Sequence[str], patience_s: float = PATIENCE_S) -> Run:
        """Both."""
        self.start(paths, patience_s)
        return self.finish()

    def warm_up(self, paths: Sequence[str]) -> None:
        """Run until every path is answered with labels; raises RuntimeError where that takes too long."""
        deadline = time.monotonic() + WARM_S
        while wrong := [one for one in self.run(paths, WARM_S).answers if not isinstance(one, list)]:
            if time.monotonic() > deadline:
                raise RuntimeError(f"not ready after {WARM_S:.0f} s: {wrong[0]}")
            time.sleep(0.1)

    def _is_ready(self, timeout_s: float) -> bool:
        assert self._process.stdout
        return bool(select.select([self._process.stdout], [], [], timeout_s)[0])

    def processes(self) -> list[psutil.Process]:
        """It, and what it started."""
        own = psutil.Process(self._process.pid)
        return [own, *own.children(recursive=True)]

    def peak_pss_bytes(self, paths: Sequence[str]) -> int:
        """The most memory that its processes have together during a run, itself (the client) and a Redis among them."""
        self.start(paths)
        found = [pss_bytes(self.processes())]
        while not self._is_ready(SAMPLE_S):
            found.append(pss_bytes(self.processes()))
        self.finish()
        return max(found)

    def models(self) -> list[psutil.Process]:
        """The processes that have run a model, the busiest first."""
        found = [process for process in self.processes()[1:] if holds_a_model(process)]
        return sorted(found, key=_busy_s, reverse=True)


@contextmanager
def driver(name: str, work: str) -> Iterator[Driver]:
    """A contender's driver in its own environment; nothing that it started is left behind."""
    log = FOLDER / "logs" / f"{name}.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    command = [str(python_of(name, CONTENDERS[name])), "-m", "benchmarks.peers.driver", name, work]
    env = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONWARNINGS": "ignore"}
    with (
        log.open("wb") as output,
        subprocess.Popen(
            command, cwd=ROOT, env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=output
        ) as process,
    ):
        ours = Driver(process)
        try:
            yield ours
        finally:
            left = ours.processes() if process.poll() is None else []
            assert process.stdin
            with suppress(BrokenPipeError):
                process.stdin.close()
            _end(process, left)


def _end(process: subprocess.Popen[bytes], left: Sequence[psutil.Process]) -> None:
    """Wait for it, and kill what is still there of what it had started."""
    with suppress(subprocess.TimeoutExpired):
        process.wait(20)
    for one in left:
        with suppress(psutil.NoSuchProcess):
            one.kill()
    process.wait()


def holds_a_model(process: psutil.Process) -> bool:
    """Whether it has ONNX Runtime loaded."""
    try:
        return RUNTIME in Path(f"/proc/{process.pid}/maps").read_text()
    except OSError:
        return False


def pss_bytes(processes: Sequence[psutil.Process]) -> int:
    """Their proportional set sizes together: what is shared between them counts once."""
    total = 0
    for process in processes:
        with suppress(psutil.NoSuchProcess, psutil.AccessDenied):
            total += process.memory_full_info().pss
    return total


def _busy_s(process: psutil.Process) -> float:
    try:
        times = process.cpu_times()
        return float(times.user + times.system)
    except psutil.NoSuchProcess:
        return 0.0
