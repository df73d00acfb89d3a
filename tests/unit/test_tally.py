"""What a worker's main process knows of the images that its processes compute."""

from __future__ import annotations

import os
import time

from worker.tally import MOST_PROCESSES, RATE_S, Pace, Tally


def test_images_of_every_process_are_added_up_with_the_time_of_the_last() -> None:
    tally = Tally()
    assert tally.read() == (0, 0.0)
    before = time.time()
    for number in (0, 1, 1, MOST_PROCESSES):
        pid = os.fork()
        if pid == 0:
            tally.add(number, 10)
            os._exit(0)
        assert os.waitpid(pid, 0)[1] == 0
    images, last = tally.read()
    assert images == 30, "those beyond the last place are not counted"
    assert before <= last <= time.time()


def test_the_rate_is_of_the_last_seconds_only() -> None:
    pace = Pace()
    assert pace(0, 100.0) == 0.0
    assert pace(50, 105.0) == 10.0
    assert pace(50, 105.0 + RATE_S) == 0.0


def test_a_look_at_the_same_moment_divides_by_nothing() -> None:
    pace = Pace()
    assert pace(0, 1.0) == pace(8, 1.0) == 0.0
