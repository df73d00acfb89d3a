"""What `serve` starts Celery with: what it was told, else what was measured, else one process a core."""

from __future__ import annotations

from argparse import Namespace
from typing import Any

import pytest

from jobs.settings import Settings
from worker import serve
from worker.tuning import Plan, Trial

MEASURED = Plan(Trial("threads", 1, 4, 8, 100.0))


def setting(
    monkeypatch: pytest.MonkeyPatch, *, pool: str | None = None, concurrency: int | None = None, **settings: Any
) -> tuple[tuple[str, int, int], int]:
    """Pool, concurrency and threads on four cores, and how often a plan was asked for."""
    asked: list[str] = []

    def ensure(model: str, **_: object) -> Plan:
        asked.append(model)
        return MEASURED

    monkeypatch.setattr(serve, "ensure", ensure)
    monkeypatch.setattr(serve, "whole_cores", lambda: 4)
    return serve._setting(Namespace(pool=pool, concurrency=concurrency), Settings(**settings)), len(asked)


def test_what_was_measured_is_taken_where_nothing_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    assert setting(monkeypatch) == (("threads", 1, 4), 1)
    assert setting(monkeypatch, batch_size=16) == (("threads", 1, 4), 1)


@pytest.mark.parametrize(
    ("told", "expected"),
    [
        ({"pool": "prefork"}, ("prefork", 4, 1)),
        ({"concurrency": 2}, ("prefork", 2, 1)),
        ({"pool": "threads", "concurrency": 3, "threads": 2}, ("threads", 3, 2)),
        ({"threads": 2}, ("prefork", 2, 2)),
        ({"threads": 3}, ("prefork", 1, 3)),
        ({"threads": 8}, ("prefork", 1, 8)),
    ],
    ids=str,
)
def test_what_is_told_wins_and_the_rest_fits_it(
    told: dict[str, Any], expected: tuple[str, int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert setting(monkeypatch, **told) == (expected, 1), "the batch size is still the plan's"
    assert setting(monkeypatch, **told, batch_size=4) == (expected, 0)


def test_nothing_is_measured_where_that_is_off(monkeypatch: pytest.MonkeyPatch) -> None:
    assert setting(monkeypatch, tune="off") == (("prefork", 4, 1), 0)
