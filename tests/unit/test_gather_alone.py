"""Whether a single call looks for others before it is answered."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from worker import gather
from worker.calls import Call
from worker.gather import LONELY_S, Gatherer

CALL = Call("a.jpg")


class Clock:
    """Seconds that pass when told."""

    def __init__(self) -> None:
        self.now = 1000.0

    def perf_counter(self) -> float:
        return self.now

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(gather, "time", clock)
    return clock


def looks(monkeypatch: pytest.MonkeyPatch, *, wait_s: float = 0.0) -> tuple[Gatherer, list[str]]:
    """A gatherer, and how each of its calls was answered."""
    ways: list[str] = []

    def together(self: Gatherer, call: Call, queue: str, most: int) -> tuple[dict[str, Any], int]:
        ways.append("looked")
        return {}, 0

    def alone(calls: list[Call]) -> list[dict[str, Any]]:
        ways.append("alone")
        return [{}]

    monkeypatch.setattr(Gatherer, "_answer", together)
    monkeypatch.setattr(gather, "answer_all", alone)
    nobody: Any = SimpleNamespace()
    return Gatherer(nobody, nobody, nobody, 8, wait_s), ways


def test_only_calls_that_follow_each_other_look_for_more(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    gatherer, ways = looks(monkeypatch)
    for pause_s in (0.0, 0.0, LONELY_S / 2, LONELY_S * 2, 0.0):
        clock.now += pause_s
        gatherer.classify("id", "m.interactive", CALL)
    assert ways == ["alone", "looked", "looked", "alone", "looked"]


def test_where_a_longest_wait_is_set_every_call_looks(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    gatherer, ways = looks(monkeypatch, wait_s=0.01)
    gatherer.classify("id", "m.interactive", CALL)
    assert ways == ["looked"]


def test_a_call_that_comes_again_takes_no_others_along(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    gatherer, ways = looks(monkeypatch)
    for _ in range(2):
        gatherer.classify("id", "", CALL)
    assert ways == ["alone", "alone"]
