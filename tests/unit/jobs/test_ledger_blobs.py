"""Bytes that travel by value: kept as long as a chunk needs them, and no longer. On fakeredis and on a real Redis."""

from __future__ import annotations

import pytest

from jobs.items import Item, encode_chunk
from jobs.ledger import MissingBlobError
from tests.support.books import Books

A, B = "a" * 64, "b" * 64


def blob_chunk(**refs: str) -> bytes:
    return encode_chunk([Item(name, f"blob:{sha}", {"note": f"blob:{B}"}) for name, sha in refs.items()])


def test_blobs_go_when_the_last_chunk_that_needs_them_is_finished(books: Books) -> None:
    books.job(seal=False)
    books.ledger.submit("job", 0, blob_chunk(x=A), blobs={A: b"bytes"})
    books.ledger.submit("job", 1, blob_chunk(y=A))
    assert books.ledger.blobs("job", [A, B]) == {A: b"bytes"}
    books.finish(books.claimed())
    assert books.ledger.blobs("job", [A]) == {A: b"bytes"}
    books.finish(books.claimed())
    assert books.ledger.blobs("job", [A]) == {}


def test_a_chunk_whose_bytes_went_meanwhile_is_refused_whole(books: Books) -> None:
    books.job(seal=False)
    books.ledger.submit("job", 0, blob_chunk(x=A), blobs={A: b"bytes"})
    books.finish(books.claimed())
    with pytest.raises(MissingBlobError, match=A):
        books.ledger.submit("job", 1, blob_chunk(y=A))
    assert books.counts() == {"total": 1, "succeeded": 1}
    assert books.ledger.submit("job", 1, blob_chunk(y=A), blobs={A: b"bytes"}).items == 1


def test_failed_items_keep_their_bytes_for_a_retry(books: Books) -> None:
    books.job(seal=False)
    books.ledger.submit("job", 0, blob_chunk(x=A, y=B), blobs={A: b"1", B: b"2"})
    books.finish(books.claimed(), bad=["x"])
    assert books.ledger.blobs("job", [A, B]) == {A: b"1"}
    (entry,) = books.ledger.entries("job")
    books.ledger.retry("job", entry.id, [0], expires_s=100)
    books.finish(books.claimed())
    assert books.ledger.blobs("job", [A, B]) == {}


def test_cancelled_items_free_their_bytes(books: Books) -> None:
    books.job(seal=False)
    books.ledger.submit("job", 0, blob_chunk(x=A), blobs={A: b"1"})
    books.ledger.cancel("job")
    assert books.ledger.blobs("job", [A]) == {}


def test_user_fields_are_no_references(books: Books) -> None:
    books.job(seal=False)
    items = [Item("x", "/images/x", {"a": "b", f"blob:{A}": 1}), Item('","blob:ff"', "/images/y")]
    assert books.ledger.submit("job", 0, encode_chunk(items)).items == 2


@pytest.mark.parametrize("custom_id", ['say "hi",', "back\\", '\\",', 'a","blob:ff'])
def test_bytes_are_kept_for_an_item_whatever_its_id_ends_with(books: Books, custom_id: str) -> None:
    books.job(seal=False)
    books.ledger.submit("job", 0, blob_chunk(x=A), blobs={A: b"bytes"})
    books.ledger.submit("job", 1, blob_chunk(**{custom_id: A}))
    books.finish(books.claimed())
    assert books.ledger.blobs("job", [A]) == {A: b"bytes"}
    books.finish(books.claimed())
    assert books.ledger.blobs("job", [A]) == {}
