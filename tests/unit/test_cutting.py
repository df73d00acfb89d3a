"""Images become chunks: how many go into each, and how far ahead a source is read."""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Iterator
from itertools import count

import pytest

from jobs.items import Item
from producer.cutting import AHEAD, AHEAD_S, Chunk, Measure, cut, together
from producer.sources import Picture, Upload


def numbered(many: int) -> list[Picture]:
    return [Item(f"{number}.jpg", f"/data/{number}.jpg") for number in range(many)]


def sizes(pictures: Iterable[Picture], measure: Measure) -> list[int]:
    return [len(chunk.items) for chunk in cut(pictures, lambda: measure)]


@pytest.mark.parametrize(
    ("many", "measure", "expected"),
    [
        (0, Measure(6, 2), []),
        (20, Measure(6), [6, 6, 6, 2]),
        (7, Measure(1, 4), [1] * 7),
        (20, Measure(6, 8), [2, 2, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1]),
        (100, Measure(453, 2), [56, 44]),
        (2000, Measure(453, 2), [453, 387, 290, 218, 163, 123, 92, 69, 56, 56, 56, 37]),
    ],
)
def test_the_last_chunks_are_small_enough_for_all_processes(
    many: int, measure: Measure, expected: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("producer.cutting.AHEAD_S", math.inf)  # however busy this machine is
    assert sizes(numbered(many), measure) == expected


@pytest.mark.parametrize("measure", [Measure(1), Measure(7, 3), Measure(512, 100), Measure(10, 1)])
def test_every_image_is_in_one_chunk_and_they_keep_their_order(measure: Measure) -> None:
    pictures = [Upload(f"{n}.jpg", b"") if n % 3 else Item(f"{n}.jpg", f"/{n}.jpg") for n in range(1000)]
    found = [item.custom_id for chunk in cut(pictures, lambda: measure) for item in chunk.items]
    assert found == [picture.custom_id for picture in pictures]


def test_a_job_of_hundreds_of_processes_is_not_read_into_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("producer.cutting.AHEAD_S", math.inf)
    read: list[Picture] = []
    next(cut(_watched(numbered(3 * AHEAD), read), lambda: Measure(512, 1000)))
    assert AHEAD <= len(read) <= AHEAD + 512


def test_a_slow_source_is_not_waited_for_to_see_its_end() -> None:
    def slow() -> Iterator[Picture]:
        for number in count():
            time.sleep(AHEAD_S / 2)
            yield Item(f"{number}.jpg", f"/{number}.jpg")

    read: list[Picture] = []
    first = next(cut(_watched(slow(), read), lambda: Measure(4, 8)))
    assert len(first.items) == 4
    assert len(read) == 4


def test_uploads_are_read_ahead_for_a_chunk_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("producer.cutting.CHUNK_BYTES", 5000)
    read: list[Picture] = []
    chunks = cut(_watched([Upload(f"{n}", bytes([n]) * 2000) for n in range(20)], read), lambda: Measure(100, 8))
    assert len(next(chunks).items) == 3
    assert len(read) == 3
    assert sum(len(chunk.items) for chunk in chunks) == 17


def test_what_workers_do_is_looked_at_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("producer.cutting.RESIZE_S", 0.0)
    measures = iter([Measure(1), Measure(2), Measure(4)])
    assert [len(chunk.items) for chunk in cut(numbered(6), lambda: next(measures, Measure(9)))] == [1, 2, 3]


def grouped(many: int, *, room: int = 1000, most: int = 16) -> list[int]:
    """How many chunks of two images are in each group."""
    chunks = cut(numbered(2 * many), lambda: Measure(2))
    return [len(group) for group in together(chunks, lambda: room, most=most)]


@pytest.mark.parametrize(
    ("many", "options", "expected"),
    [
        (0, {}, []),
        (1, {}, [1]),
        (40, {}, [1, 2, 4, 8, 16, 9]),
        (40, {"most": 8}, [1, 2, 4, 8, 8, 8, 8, 1]),
        (4, {"most": 1}, [1, 1, 1, 1]),
        (10, {"room": 4}, [1, 2, 3, 3, 1]),
        (3, {"room": -1}, [1, 1, 1]),
    ],
)
def test_chunks_go_together_more_and_more_of_them(
    many: int, options: dict[str, int], expected: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("producer.cutting.AHEAD_S", math.inf)  # however busy this machine is
    assert grouped(many, **options) == expected


def test_no_chunk_waits_for_others_that_take_their_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("producer.cutting.AHEAD_S", 0.0)
    assert grouped(5) == [1, 1, 1, 1, 1]


def test_chunks_with_many_uploaded_bytes_go_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("producer.cutting.AHEAD_S", math.inf)
    monkeypatch.setattr("producer.cutting.CHUNK_BYTES", 5000)
    chunks = cut([Upload(f"{n}", bytes([n]) * 2000) for n in range(12)], lambda: Measure(1))
    assert [len(group) for group in together(chunks, lambda: 1000, most=16)] == [1, 2, 3, 3, 3]


def test_what_was_cut_before_an_error_is_not_lost_with_it() -> None:
    def breaking() -> Iterator[Picture]:
        yield from numbered(4)
        raise OSError("the source is gone")

    found: list[list[Chunk]] = []
    with pytest.raises(OSError, match="gone"):
        found.extend(together(cut(breaking(), lambda: Measure(1)), lambda: 1000, most=16))
    assert sum(map(len, found)) == 4


def _watched(pictures: Iterable[Picture], read: list[Picture]) -> Iterator[Picture]:
    for picture in pictures:
        read.append(picture)
        yield picture
