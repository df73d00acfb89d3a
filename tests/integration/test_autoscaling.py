"""Scaling by the backlog's seconds: workers come with a wave of work and go after it, and all of it is done."""

from __future__ import annotations

import pytest

from benchmarks.autoscaling import simulate
from tests.support.servers import RedisServer


@pytest.mark.slow
def test_workers_come_with_a_wave_and_go_after_it(redis: RedisServer) -> None:
    rows = simulate(redis, seconds=30, target_s=2.0, most=8)
    most = max(rows, key=lambda row: row["workers"])
    assert rows[0]["workers"] == 1
    assert 1 < most["workers"] <= 8
    assert rows[-1]["workers"] < most["workers"]
    assert rows[-1]["items"] < max(row["items"] for row in rows)
    assert redis.ledger.status("wave").request_counts["failed"] == 0
