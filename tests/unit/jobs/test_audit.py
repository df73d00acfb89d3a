"""The audit: books that add up, and every item that is outside of them."""

from __future__ import annotations

from jobs.ledger import COUNTS
from tests.support.books import LEASE_S, Books


class Ids:
    """Says whether an id is new."""

    def __init__(self) -> None:
        self.ids: set[str] = set()

    def first_seen(self, custom_id: str) -> bool:
        is_new = custom_id not in self.ids
        self.ids.add(custom_id)
        return is_new


def test_every_state_an_item_can_be_in_is_in_the_books(books: Books) -> None:
    books.job(["a", "b"], ["c"], ["d"], ["e", "f"], ["g"])
    books.finish(books.claimed(), bad=["b"])
    books.claimed()
    audit = books.ledger.audit("job")
    assert audit.is_balanced
    assert audit.is_complete
    assert (audit.open_chunks, audit.waiting_chunks, audit.leased_chunks) == (4, 3, 1)
    assert audit.recounted == {"succeeded": 1, "failed": 1, "cancelled": 0, "expired": 0}
    assert audit.status.request_counts == dict(zip(COUNTS, (7, 4, 1, 1, 1, 0, 0), strict=True))


def test_retried_and_quarantined_items_are_in_the_books(books: Books) -> None:
    books.job(["a", "b"], ["c", "d"])
    books.finish(books.claimed(), bad=["a", "b"])
    (entry,) = books.ledger.entries("job")
    books.ledger.retry("job", entry.id, [1], expires_s=100)
    for _ in range(2):
        books.claimed()
        books.pass_time(LEASE_S)
        books.ledger.sweep()
    audit = books.ledger.audit("job", first_seen=Ids().first_seen)
    assert audit.problems == ()
    assert audit.recounted["failed"] == 1


def test_a_count_that_drifted_is_named(books: Books) -> None:
    books.job(["a"], ["b"])
    books.finish(books.claimed())
    books.ledger.redis.hincrby(books.ledger.key("job"), "succeeded", 1)
    assert books.ledger.audit("job").problems == (
        "total is 2, but all the others add up to 3",
        "succeeded is 2 in the books, but 1 when counted",
    )


def test_items_of_a_chunk_that_neither_waits_nor_is_leased_are_listed(books: Books) -> None:
    books.job(["a", "b"], ["c"])
    books.ledger.redis.lpop(books.ledger.key("job", "queued"))
    assert books.ledger.audit("job").problems == (
        "2 chunks are open, 1 wait, 0 are leased",
        "item 'a' is in chunk 0, which neither waits nor is leased",
        "item 'b' is in chunk 0, which neither waits nor is leased",
    )


def test_a_lost_payload_is_noticed(books: Books) -> None:
    books.job(["a"], ["b"])
    claim = books.claimed()
    books.ledger.redis.hdel(books.ledger.key("job", "payload"), claim.chunk_id)
    problems = books.ledger.audit("job").problems
    assert "1 chunks are open, 1 wait, 1 are leased" in problems
    assert "leased is 1 in the books, but 0 when counted" in problems


def test_an_item_recorded_twice_is_named(books: Books) -> None:
    books.job(["a", "b"], ["b"])
    books.finish_all()
    assert books.ledger.audit("job").is_balanced
    assert books.ledger.audit("job", first_seen=Ids().first_seen).problems == ("item 'b' is there more than once",)


def test_work_that_goes_on_during_the_audit_is_no_problem(books: Books) -> None:
    books.job(*[[str(i)] for i in range(20)])
    books.finish_all()
    books.job(*[[str(i)] for i in range(20)], job="other")

    def works_meanwhile(custom_id: str) -> bool:
        if claim := books.claim():
            books.finish(claim)
        return True

    books.finish(books.claimed())
    audit = books.ledger.audit("other", first_seen=works_meanwhile)
    assert audit.problems == ()
    assert not audit.is_complete
    assert audit.status.request_counts["succeeded"] == 1
    assert books.counts("other")["succeeded"] > 1
