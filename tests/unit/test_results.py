"""Results: how often they are looked for, and in which blocks they are handed out."""

from __future__ import annotations

import pytest
from fakeredis import FakeRedis

from jobs.errors import InvalidItemError
from jobs.items import Item, decode_chunk, decode_names, encode_chunk, label_objects
from jobs.ledger import Entry, Ledger
from jobs.records import Page
from jobs.registry import Registry
from producer import results
from producer.results import LULL_S, PAGE, Pace, ResultReader
from tests.support.books import Books


def page(open_items: int, chunks: int = 1) -> Page:
    entry = Entry("1-0", "0", b"")
    return Page([entry] * chunks, is_known=True, ended=False, retried=False, open_items=open_items)


def test_where_much_is_to_come_looks_are_as_far_apart_as_a_fifth_of_a_second() -> None:
    pace = Pace()
    assert pace.rest_s(page(10_000), 0.0) == 0.0, "nobody knows yet how fast they come"
    assert pace.rest_s(page(9_990), 0.1) == LULL_S


def test_towards_the_end_rests_are_short_and_then_none() -> None:
    pace = Pace()
    pace.rest_s(page(1_000), 0.0)
    rests = [pace.rest_s(page(1_000 - done), done / 100) for done in (900, 930, 960, 985, 1_000)]
    assert rests == pytest.approx([LULL_S, 0.175, 0.1, 0.0, 0.0])


def test_a_full_page_is_followed_by_the_next_one_at_once() -> None:
    pace = Pace()
    pace.rest_s(page(10_000), 0.0)
    assert pace.rest_s(page(9_000, PAGE), 0.1) == 0.0


def test_a_job_that_grows_while_it_is_read_is_rested_for_too() -> None:
    pace = Pace()
    pace.rest_s(page(100), 0.0)
    pace.rest_s(page(90), 0.1)
    assert pace.rest_s(page(10_000), 0.2) == LULL_S


def test_blocks_have_the_cursor_behind_their_last_chunk(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(results, "BLOCK", 3)
    redis = FakeRedis()
    books = Books(Ledger(redis))
    job = books.job(["a", "b"], ["c", "d"], ["e"])
    books.finish_all()
    reader = ResultReader(books.ledger, Registry(redis), job)
    pages = list(reader.pages(wait_s=0.01))
    assert [[result.custom_id for result in found] for _, found in pages] == [["a", "b", "c", "d"], ["e"]]
    again = [[result.custom_id for result in found] for _, found in reader.pages(pages[0][0], wait_s=0.01)]
    assert again == [["e"]]
    assert [result.custom_id for result in reader.results(pages[0][0])] == ["e"]


def test_names_are_those_of_the_whole_chunk() -> None:
    items = [Item("a", "/base/a"), Item("b", "https://example.org/b"), Item("c", "/base/c", {"owner": 3})]
    payload = encode_chunk(items, base="/base", sent_ms=1)
    assert decode_names(payload) == [(item.custom_id, item.fields) for item in decode_chunk(payload).items]


@pytest.mark.parametrize("payload", [b"", b"nothing", b'{"base":"","t":1}\n7', b'{"base":"","t":1}\n[]'])
def test_names_of_what_is_no_chunk_are_refused(payload: bytes) -> None:
    with pytest.raises(InvalidItemError, match="cannot be read"):
        decode_names(payload)


def test_an_index_without_a_label_is_its_own_name() -> None:
    assert [label["label"] for label in label_objects([1, 7000, 4, 2000], ["cat", "dog"])] == ["dog", "4"]
