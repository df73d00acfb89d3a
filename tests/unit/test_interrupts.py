"""Where Ctrl-C and SIGTERM interrupt, where they wait, and that none is lost."""

from __future__ import annotations

import os
import select
import signal
import sys
import threading

import pytest

from producer import interrupts
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
