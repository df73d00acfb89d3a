"""The embedded pair: nothing of it stays, whatever is interrupted, and nobody waits in silence."""

from __future__ import annotations

import dis
import signal
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

import psutil
import pytest

from jobs.errors import ServiceError
from jobs.settings import Settings
from producer import embedded
from producer.embedded import Embedded
from producer.interrupts import handled


@pytest.fixture
def folder(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="lm-test-") as name:
        monkeypatch.setattr(tempfile, "tempdir", name)
        yield Path(name)


class Pair(Embedded):
    """The real one with a real Redis; a process that does nothing stands for the worker, so that it is soon there."""

    def _start_worker(self) -> None:
        self._spawn(["sleep", "1000"], "worker.log")

    def look(self) -> None:
        for process in self._processes:
            assert not embedded._has_ended(process)


class Slow(Embedded):
    """Its worker says what it is at, as the real one does where it measures first, and never gets further."""

    def _start_worker(self) -> None:
        self._spawn(["sh", "-c", """echo '{"a": "log"}'; echo measuring; echo '{}'; exec sleep 1000"""], "worker.log")


@pytest.mark.usefixtures("folder")
def test_a_start_that_takes_long_says_what_the_worker_is_at(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embedded, "FIRST_SILENCE_S", 0.0)
    heard: set[str] = set()

    def say(line: str) -> None:
        heard.add(line)
        if line.endswith(": measuring"):
            pair._processes[-1].kill()

    with Slow(Settings.from_env(), model="noop", file_roots=[]) as pair, pytest.raises(ServiceError):
        pair.wait_ready(say)
    assert heard <= {f"waiting for the embedded worker for 0 s: {words}" for words in ("it starts", "measuring")}


#: What is interrupted: our code and the standard library's under it.
OF_A_PAIR = ("producer/embedded.py", "subprocess.py")
Point = tuple[CodeType, int]


class Tracer:
    """Sees each instruction of the pair's code before which Python itself looks whether a signal came."""

    def __init__(self, visit: Callable[[Point], object]) -> None:
        self._visit = visit
        self._names: dict[CodeType, dict[int, str]] = {}

    def __call__(self, frame: FrameType, event: str, arg: object) -> Callable[[FrameType, str, Any], Any] | None:
        code = frame.f_code
        if not code.co_filename.endswith(OF_A_PAIR):
            return None
        if code not in self._names:
            self._names[code] = {i.offset: i.opname for i in dis.get_instructions(code)}
        names = self._names[code]
        called = False
        frame.f_trace_opcodes = True

        def each(frame: FrameType, event: str, arg: object) -> Callable[[FrameType, str, Any], Any]:
            nonlocal called
            if event == "opcode":
                name = names[frame.f_lasti]
                if called or name in ("RESUME", "JUMP_BACKWARD"):
                    self._visit((code, frame.f_lasti))
                called = name.startswith("CALL")
            return each

        return each


def live(visit: Callable[[Point], object]) -> None:
    """A pair from its start to its end."""
    before = sys.gettrace()
    with handled():
        sys.settrace(Tracer(visit))
        try:
            with Pair(Settings.from_env(), model="noop", file_roots=[]) as pair:
                pair.look()
        finally:
            sys.settrace(before)


def test_whatever_is_interrupted_of_an_embedded_pair_nothing_stays_and_nothing_hangs(folder: Path) -> None:
    points: dict[Point, None] = {}
    live(points.setdefault)
    # An interruption before the first instruction of __exit__ is one of __exit__ as a whole: no Python code helps.
    points = {(code, at): None for code, at in points if code is not Embedded.__exit__.__code__}
    before, met = psutil.Process().children(), 0
    for chosen in points:
        came = []

        def strike(point: Point, chosen: Point = chosen, came: list[Point] = came) -> None:
            if point == chosen and not came:
                came.append(point)
                signal.raise_signal(signal.SIGINT)

        what = f"{chosen[0].co_qualname} at {chosen[1]}"
        with suppress(KeyboardInterrupt):
            live(strike)
            assert not came, f"lost: {what}"  # what depends on time may not be met again
        met += bool(came)
        assert psutil.Process().children() == before, what
        assert list(folder.iterdir()) == [], what
    assert met > 100
