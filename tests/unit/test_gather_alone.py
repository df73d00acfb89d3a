"""Whether a single call looks for others before it is answered."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from worker import gather
from worker.calls import Call
from worker.gather import Gatherer

CALL = Call("a.jpg")


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


@pytest.mark.parametrize(("waiting", "way"), [(0, "alone"), (1, "looked"), (None, "looked")])
def test_a_call_looks_for_others_unless_it_is_known_that_none_wait(
    waiting: int | None, way: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    gatherer, ways = looks(monkeypatch)
    gatherer.classify("id", "m.interactive", CALL, waiting=waiting)
    assert ways == [way]


def test_where_a_longest_wait_is_set_every_call_looks(monkeypatch: pytest.MonkeyPatch) -> None:
    gatherer, ways = looks(monkeypatch, wait_s=0.01)
    gatherer.classify("id", "m.interactive", CALL, waiting=0)
    assert ways == ["looked"]


def test_a_call_that_comes_again_takes_no_others_along(monkeypatch: pytest.MonkeyPatch) -> None:
    gatherer, ways = looks(monkeypatch)
    for _ in range(2):
        gatherer.classify("id", "", CALL, waiting=8)
    assert ways == ["alone", "alone"]
