"""When a worker counts as deaf."""

from __future__ import annotations

from worker.watch import Hearing


def look(hearing: Hearing, now: float, *, busy: bool = False, taken: int = 0, waiting: bool = True) -> float | None:
    return hearing.look(busy=busy, taken=taken, waiting=lambda: waiting, now=now)


def test_idle_while_tickets_wait_counts_from_the_first_look() -> None:
    hearing = Hearing()
    look(hearing, 0.0)
    assert [look(hearing, now) for now in (1.0, 4.0, 6.5)] == [0.0, 3.0, 5.5]


def test_work_in_hand_a_taken_ticket_or_an_empty_lane_begins_the_count_again() -> None:
    for change in ({"busy": True}, {"taken": 1}, {"waiting": False}):
        hearing = Hearing()
        for now in (0.0, 1.0, 5.0):
            look(hearing, now)
        assert look(hearing, 6.0, **change) is None  # type: ignore[arg-type]
        taken = int(change.get("taken", 0))
        assert look(hearing, 7.0, taken=taken) == 0.0
        assert look(hearing, 9.0, taken=taken) == 2.0


def test_nobody_asks_the_broker_while_there_is_work() -> None:
    def must_not_be_asked() -> bool:
        raise AssertionError

    assert Hearing().look(busy=True, taken=0, waiting=must_not_be_asked, now=0.0) is None
