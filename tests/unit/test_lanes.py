"""Queues by model, and whose turn it is."""

from __future__ import annotations

import pytest

from jobs.errors import UsageError
from jobs.lanes import BULK_SHARE, LaneCycle, bulk, interactive, route, served_by

DIGEST = "sha256:" + "ab" * 32


def test_a_model_has_an_interactive_and_a_bulk_lane_and_one_for_each_pinned_digest() -> None:
    assert served_by("m", DIGEST) == ["m.interactive", "m.bulk", "m@abababababababab.bulk"]
    assert bulk("m", DIGEST) == served_by("m", DIGEST)[2]


@pytest.mark.parametrize("name", ["", "a b", "../x", "a@b", "x" * 101, ".hidden", "a\n"])
def test_a_name_that_cannot_be_a_queue_is_refused(name: str) -> None:
    with pytest.raises(UsageError):
        interactive(name)


def test_single_images_are_routed_by_their_model(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LABELMILL_MODEL", "/models/mine.onnx")
    assert route("labelmill.classify", ("a.jpg",), {"model": "other"}, {}) == {"queue": "other.interactive"}
    assert route("labelmill.classify", ("a.jpg",), {}, {}) == {"queue": "mine.interactive"}
    assert route("somebody.elses", (), {}, {}) is None


def cycle() -> LaneCycle:
    made = LaneCycle()
    made.update({"a.bulk", "a.interactive", "b.interactive"})
    return made


def test_interactive_is_asked_first() -> None:
    assert [name.rpartition(".")[2] for name in cycle().consume(3)] == ["interactive", "interactive", "bulk"]


def test_bulk_is_asked_first_after_its_share_of_interactive_messages_and_only_once() -> None:
    lanes = cycle()
    for _ in range(BULK_SHARE):
        assert lanes.consume(3)[0] != "a.bulk"
        lanes.rotate("a.interactive")
    assert lanes.consume(3)[0] == "a.bulk"
    lanes.rotate("a.bulk")
    assert lanes.consume(3)[0] != "a.bulk"


def test_queues_of_one_kind_take_turns() -> None:
    lanes = cycle()
    first = lanes.consume(3)[0]
    lanes.rotate(first)
    assert lanes.consume(3)[0] not in (first, "a.bulk")


def test_a_queue_that_is_no_longer_consumed_is_not_asked() -> None:
    lanes = cycle()
    lanes.update({"a.bulk"})
    assert lanes.consume(1) == ["a.bulk"]
