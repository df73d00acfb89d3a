"""Where Ctrl-C and SIGTERM interrupt, where they wait, and that none is lost."""

from __future__ import annotations

import dis
import os
import select
import signal
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

import psutil
import pytest

from jobs.settings import Settings
from producer import embedded, interrupts
from producer.embedded import Embedded
from producer.interrupts import handled, shielded

BOTH = pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])


@BOTH
def test_a_signal_interrupts_and_handlers_are_as_before_afterwards(number: signal.Signals) -> None:
    before = signal.getsignal(number), sys.unraisablehook
    with pytest.raises(KeyboardInterrupt), handled():
        signal.raise_signal(number)
    assert (signal.getsignal(number), sys.unraisablehook) == before


@BOTH
def test_what_is_shielded_is_finished_first(number: signal.Signals) -> None:
    done = []

    def shielded_twice() -> None:
        with shielded:
            with shielded:
                signal.raise_signal(number)
                done.append("inner")
            done.append("outer")
        done.append("never")

    with handled():
        with pytest.raises(KeyboardInterrupt):
            shielded_twice()
        with shielded:
            done.append("and it came once")
    assert done == ["inner", "outer", "and it came once"]


def test_a_failure_in_a_shield_is_told_by_the_interruption() -> None:
    def fail() -> None:
        with shielded:
            signal.raise_signal(signal.SIGINT)
            raise ValueError("the reason")

    with handled(), pytest.raises(KeyboardInterrupt) as caught:
        fail()
    assert isinstance(caught.value.__context__, ValueError)


class Finalized:
    def __del__(self) -> None:
        signal.raise_signal(signal.SIGINT)  # the handler raises in here, and Python ignores that


def test_an_interruption_that_python_ignored_comes_again() -> None:
    def go_on() -> None:
        Finalized()
        select.select([], [], [], 60)

    with handled(), pytest.raises(KeyboardInterrupt):
        go_on()


def test_another_exception_that_python_ignores_is_told_as_ever(capsys: pytest.CaptureFixture[str]) -> None:
    class Broken:
        def __del__(self) -> None:
            raise ValueError("in a finalizer")

    with handled():
        Broken()
    assert "in a finalizer" in capsys.readouterr().err


def test_a_thread_interrupts_the_main_one_in_its_wait() -> None:
    reading, writing = os.pipe()
    thread = threading.Timer(0, interrupts.interrupt)

    def wait() -> None:
        thread.start()
        os.read(reading, 1)

    try:
        with handled(), pytest.raises(KeyboardInterrupt):
            wait()
    finally:
        thread.join()
        os.close(reading)
        os.close(writing)


def test_a_sigint_that_is_ignored_stays_so_and_a_thread_still_interrupts() -> None:
    def interrupted() -> None:
        interrupts.interrupt()
        select.select([], [], [], 60)

    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with handled():
            signal.raise_signal(signal.SIGINT)
            assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
            with pytest.raises(KeyboardInterrupt):
                interrupted()
    finally:
        signal.signal(signal.SIGINT, before)


class Pair(Embedded):
    """The real one with a real Redis; a process that does nothing stands for the worker, so that it is soon there."""

    def _start_worker(self) -> None:
        self._spawn(["sleep", "1000"], "worker.log")

    def look(self) -> None:
        for process in self._processes:
            assert not embedded._has_ended(process)


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


@pytest.fixture
def folder(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="lm-test-") as name:
        monkeypatch.setattr(tempfile, "tempdir", name)
        yield Path(name)


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
