"""Progress: honest rates, a line in a pipe."""

from __future__ import annotations

import io

from rich.console import Console

from jobs.ledger import COUNTS, JobStatus
from producer.progress import WINDOW_S, Rate, Watch, describe, duration


def status(*, sealed: bool = True, **counts: int) -> JobStatus:
    return JobStatus(
        job="j",
        state="in_progress",
        sealed=sealed,
        model="m",
        digest="",
        lane="m.bulk",
        top_k=5,
        request_counts=dict.fromkeys(COUNTS, 0) | counts,
        metadata={},
        chunks=1,
        claims=0,
        recovered=0,
        late_finishes=0,
        created_ms=0,
        expires_ms=0,
        ended_ms=0,
    )


def test_the_rate_is_of_the_last_seconds_and_not_since_the_start() -> None:
    rate = Rate()
    assert rate.update(0, now=0.0) == 0.0
    assert rate.update(1000, now=1.0) == 1000.0
    slow = [rate.update(1000 + 10 * i, now=1.0 + i) for i in range(1, 30)]
    assert slow[-1] == 10.0
    assert slow[int(WINDOW_S) + 1] == 10.0


def test_a_retry_makes_no_rate_below_nothing() -> None:
    rate = Rate()
    rate.update(1000, now=0.0)
    assert rate.update(900, now=1.0) == 0.0
    assert rate.update(950, now=2.0) == 50.0


def test_a_line_says_what_is_done_and_how_long_it_takes() -> None:
    line = describe(status(total=100, queued=40, leased=10, succeeded=45, failed=5), 10.0)
    assert line == "50/100, 5 failed, 10 images/s, 0:05 left"


def test_no_time_left_is_promised_while_items_still_come() -> None:
    assert "left" not in describe(status(sealed=False, total=100, queued=40, succeeded=60), 10.0)


def test_durations_read_like_a_clock() -> None:
    assert [duration(s) for s in (5, 75, 3675)] == ["0:05", "1:15", "1:01:15"]


def test_in_a_pipe_there_are_plain_lines_and_always_the_last_one() -> None:
    stream = io.StringIO()
    watch = Watch(Console(file=stream, force_terminal=False))
    with watch:
        watch.update(status(total=2, queued=2))
        watch.update(status(total=2, queued=1, succeeded=1))  # too soon for another line
        watch.update(status(total=2, succeeded=2), last=True)
        watch.update(status(total=2, succeeded=2), last=True)  # it is said already
    assert [line.split(",")[0] for line in stream.getvalue().splitlines()] == ["0/2", "2/2"]
    assert "\x1b" not in stream.getvalue()
