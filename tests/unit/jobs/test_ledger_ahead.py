"""Chunks that a worker holds for later, beside the one it is at. On fakeredis and on a real Redis."""

from __future__ import annotations

import pytest

from jobs.errors import CrashedWorkerError
from jobs.ledger import Claim, Next
from tests.support.books import LANE, LEASE_S, Books

TOKEN = "token"


def ahead(books: Books, held: int = 0, token: str = TOKEN) -> Claim | None:
    """Another chunk for later."""
    return books.ledger.claim_ahead(LANE, token, held, lease_s=LEASE_S)


def go_on(books: Books, claim: Claim, *unless: str, is_over: bool = False) -> Claim | None:
    """Finish a chunk of one item and claim the next one."""
    then = Next(LANE, LEASE_S, unless, is_over)
    done = {"succeeded": 1, "failed": 0, "results": b"[0,5000]", "digest": "sha256:0"}
    recorded, following = books.ledger.finish_and_claim(claim, then, **done)  # type: ignore[arg-type]
    assert recorded
    return following


def three_in_hand(books: Books) -> tuple[Claim, Claim, Claim]:
    """A chunk that a token is at, and two that it holds for later; one waits."""
    books.job(["a"], ["b"], ["c"], ["d"])
    at, first, second = books.claimed(TOKEN), ahead(books), ahead(books, 1)
    assert first is not None
    assert second is not None
    assert books.counts() == {"total": 4, "queued": 1, "leased": 3}
    return at, first, second


def test_what_is_held_for_later_is_next_and_in_its_order(books: Books) -> None:
    at, first, second = three_in_hand(books)
    assert go_on(books, at) == first
    assert go_on(books, first) == second
    last = go_on(books, second)
    assert last is not None
    assert [item.custom_id for item in last.chunk.items] == ["d"]
    assert go_on(books, last) is None
    assert books.status().ended
    assert books.ledger.audit("job").problems == ()


def test_a_call_whose_answer_was_lost_gives_the_same_chunk(books: Books) -> None:
    at, first, _ = three_in_hand(books)
    assert ahead(books) == first
    assert ahead(books, 1) != first
    assert go_on(books, at) == go_on(books, at) == first
    assert books.counts() == {"total": 4, "queued": 1, "leased": 2, "succeeded": 1}


def test_whoever_is_at_no_chunk_holds_none_for_later(books: Books) -> None:
    books.job(["a"])
    assert ahead(books) is None
    assert books.finish(books.claimed(TOKEN))
    assert ahead(books) is None


@pytest.mark.parametrize("why", ["something goes first", "the turn is over", "nothing more is wanted"])
def test_where_a_turn_ends_they_wait_again_before_all_others(books: Books, why: str) -> None:
    at, _, _ = three_in_hand(books)
    books.ledger.redis.lpush("noop.interactive", "a call")
    if why == "nothing more is wanted":
        assert books.finish(at)
    else:
        queues = ("noop.interactive",) if why == "something goes first" else ()
        assert go_on(books, at, *queues, is_over=not queues) is None
    assert books.counts() == {"total": 4, "queued": 3, "succeeded": 1}
    assert [claim.chunk.items[0].custom_id for claim in books.finish_all()] == ["b", "c", "d"]
    assert books.ledger.redis.keys("*ahead*") == []


@pytest.mark.parametrize("how", ["dies", "is released", "falls silent"])
def test_the_death_of_their_holder_says_nothing_about_them(books: Books, how: str) -> None:
    three_in_hand(books)
    if how == "dies":
        assert books.ledger.crashed(TOKEN, CrashedWorkerError()) == LANE
    elif how == "is released":
        assert books.ledger.release(TOKEN) == LANE
    else:
        books.pass_time(LEASE_S)
        assert books.ledger.sweep()[0] == 3
    assert books.counts() == {"total": 4, "queued": 4}
    crashes = {claim.chunk.items[0].custom_id: claim.crashes for claim in books.finish_all()}
    assert crashes == {"a": 0 if how == "is released" else 1, "b": 0, "c": 0, "d": 0}
    assert books.ledger.redis.keys("*ahead*") == []


def test_their_leases_are_renewed_with_that_of_their_holder(books: Books) -> None:
    at, first, _ = three_in_hand(books)
    for _ in range(3):
        books.pass_time(LEASE_S * 0.6)
        assert books.ledger.renew([TOKEN], lease_s=LEASE_S) == []
        assert books.ledger.sweep()[0] == 0
    assert go_on(books, at) == first


def test_one_that_was_deleted_meanwhile_is_passed_over(books: Books) -> None:
    books.job(["a"], job="one")
    books.job(["b"], job="two")
    at = books.claimed(TOKEN)
    assert ahead(books) is not None
    books.ledger.delete("two")
    assert go_on(books, at) is None


def test_one_of_a_cancelled_job_ends_cancelled_where_it_is_given_back(books: Books) -> None:
    three_in_hand(books)
    books.ledger.cancel("job")
    assert books.counts() == {"total": 4, "cancelled": 1, "leased": 3}
    assert books.ledger.release(TOKEN)
    assert books.counts() == {"total": 4, "cancelled": 4}
    assert books.status().ended


def test_a_chunk_in_quarantine_is_tried_alone(books: Books) -> None:
    """None is held beside it, and it is not held beside another."""
    books.job(["a"])
    for _ in range(2):  # whole workers fall silent with it
        books.claimed()
        books.pass_time(LEASE_S)
        assert books.ledger.sweep()[0] == 1
    books.job(["b"], ["c"], job="other")
    alone = books.claimed(TOKEN)
    assert alone.alone
    assert ahead(books) is None
    books.ledger.release(TOKEN)
    at, later = books.claimed(TOKEN), ahead(books)
    assert later is not None
    assert (at.job, later.job) == ("other", "other")
    assert ahead(books, 1) is None
