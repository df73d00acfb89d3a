"""Where Ctrl-C and SIGTERM interrupt, where they wait, and that none is lost."""

from __future__ import annotations

import argparse
import os
import select
import signal
import sys
import threading

import pytest

from producer import interrupts
from producer.cli import main
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
        select.select([], [], [], 10)

    with handled(), pytest.raises(KeyboardInterrupt):
        go_on()


def test_one_that_was_ignored_at_the_very_end_is_not_lost() -> None:
    def end() -> None:
        with handled():
            Finalized()

    with pytest.raises(KeyboardInterrupt):
        end()
    with handled():
        interrupts._again()  # which finds that it was heard


def test_nobody_is_interrupted_where_signals_are_not_handled() -> None:
    came: list[int] = []
    before = signal.signal(signal.SIGTERM, lambda number, frame: came.append(number))
    try:
        with handled():
            pass
        interrupts.interrupt()
        assert came == []
    finally:
        signal.signal(signal.SIGTERM, before)


def test_two_signals_at_once_are_one_interruption_and_a_later_one_is_another(monkeypatch: pytest.MonkeyPatch) -> None:
    cleaned = []

    def clean_up() -> None:
        try:
            monkeypatch.setattr(interrupts, "SAME_S", 3600.0)
            signal.raise_signal(signal.SIGINT)
        finally:
            signal.raise_signal(signal.SIGTERM)
            cleaned.append("first")
            monkeypatch.setattr(interrupts, "SAME_S", 0.0)
            signal.raise_signal(signal.SIGTERM)
            cleaned.append("never")

    with handled(), pytest.raises(KeyboardInterrupt):
        clean_up()
    assert cleaned == ["first"]


def test_a_shield_of_another_thread_shields_nothing() -> None:
    shields, goes_on = threading.Event(), threading.Event()

    def hold() -> None:
        with shielded:
            shields.set()
            goes_on.wait()

    thread = threading.Thread(target=hold)
    thread.start()
    try:
        shields.wait()
        with handled(), pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
    finally:
        goes_on.set()
        thread.join()


def test_what_comes_of_an_interruption_is_one(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def run(args: argparse.Namespace) -> int:
        try:
            signal.raise_signal(signal.SIGINT)
        finally:
            raise RuntimeError("release unlocked lock")  # as from the middle of Thread.start

    monkeypatch.setattr("producer.commands.models.run", run)
    assert main(["models"]) == 130
    assert capsys.readouterr().err == "labelmill: interrupted\n"


def test_what_comes_of_anything_else_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    def run(args: argparse.Namespace) -> int:
        raise RuntimeError("a bug")

    monkeypatch.setattr("producer.commands.models.run", run)
    with pytest.raises(RuntimeError, match="a bug"):
        main(["models"])


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


def test_a_sigint_that_is_ignored_stays_so_after_others_handled_it() -> None:
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with handled():
            signal.signal(signal.SIGINT, signal.default_int_handler)  # as gunicorn does
            interrupts.install()
            assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, before)


def test_a_sigint_that_is_ignored_stays_so_and_a_thread_still_interrupts() -> None:
    def interrupted() -> None:
        interrupts.interrupt()
        select.select([], [], [], 10)

    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with handled():
            signal.raise_signal(signal.SIGINT)
            assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
            with pytest.raises(KeyboardInterrupt):
                interrupted()
    finally:
        signal.signal(signal.SIGINT, before)
