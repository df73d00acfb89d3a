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
from producer import embedded, interrupts
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
        says = r"""echo '{"a": "log"}'; echo measuring; echo '{}'; printf '\033[0;93mW: a warning\n'; exec sleep 1000"""
        self._spawn(["sh", "-c", says], "worker.log")


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
OF_A_PAIR = ("producer/embedded.py", "producer/interrupts.py", "subprocess.py")
#: What decides which signals there are to come.
BEFORE_AND_AFTER = ("handled", "_Interruptions.begin", "_Interruptions.install", "_Interruptions.end")
#: A place where Python looks whether a signal came: the code, -1 for its beginning or the place in it, and its caller.
Point = tuple[CodeType, int, CodeType | None]


class Tracer:
    """Sees each place in the pair's code at which Python looks whether a signal came."""

    def __init__(self, visit: Callable[[Point], object]) -> None:
        self._visit = visit
        self._names: dict[CodeType, dict[int, str]] = {}

    def __call__(self, frame: FrameType, event: str, arg: object) -> Callable[[FrameType, str, Any], Any] | None:
        code, caller = frame.f_code, frame.f_back and frame.f_back.f_code
        if not code.co_filename.endswith(OF_A_PAIR) or code.co_qualname in BEFORE_AND_AFTER:
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
                if called or name == "JUMP_BACKWARD":
                    self._visit((code, frame.f_lasti, caller))
                called = name.startswith("CALL")
            return each

        self._visit((code, -1, caller))
        return each


def live(visit: Callable[[Point], object], *, interrupted: bool) -> None:
    """A pair from its start to its end; ``visit`` sees all of it, or what comes after it was interrupted."""
    before = sys.gettrace()
    with handled():
        if not interrupted:
            sys.settrace(Tracer(visit))
        try:
            with Pair(Settings.from_env(), model="noop", file_roots=[]) as pair:
                pair.look()
                if interrupted:
                    sys.settrace(Tracer(visit))
                    signal.raise_signal(signal.SIGINT)
        finally:
            sys.settrace(before)


@pytest.mark.parametrize("interrupted", [False, True], ids=["once", "twice"])
def test_whatever_is_interrupted_of_an_embedded_pair_nothing_stays_and_nothing_hangs(
    interrupted: bool, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(interrupts, "SAME_S", 0.0)  # the second one is another one
    points: dict[Point, None] = {}
    with suppress(KeyboardInterrupt):
        live(points.setdefault, interrupted=interrupted)
    before, met = psutil.Process().children(), 0
    for chosen in points:
        came = []

        def strike(point: Point, chosen: Point = chosen, came: list[Point] = came) -> None:
            if point == chosen and not came:
                came.append(point)
                signal.raise_signal(signal.SIGTERM)

        what = f"{chosen[0].co_qualname} at {chosen[1]}, of {chosen[2] and chosen[2].co_qualname}"
        with suppress(KeyboardInterrupt):
            live(strike, interrupted=interrupted)
            assert not came, f"lost: {what}"  # what depends on time may not be met again
        met += bool(came)
        assert psutil.Process().children() == before, what
        assert list(folder.iterdir()) == [], what
    assert met > 50
