"""Chunks that a worker holds for later, beside the one it is at. On fakeredis and on a real Redis."""

from __future__ import annotations

import pytest

from jobs.errors import CrashedWorkerError
from jobs.ledger import Claim, Done, Next
from tests.support.books import LANE, LEASE_S, Books, chunk_of

TOKEN = "token"


def ahead(books: Books, held: int = 0, token: str = TOKEN) -> Claim | None:
    """Another chunk for later."""
    return books.ledger.claim_ahead(LANE, token, held, lease_s=LEASE_S)


def go_on(books: Books, claim: Claim, *unless: str, is_over: bool = False) -> Claim | None:
    """Finish a chunk of one item and claim the next one."""
    then = Next(LANE, LEASE_S, unless, is_over)
    done = Done(succeeded=1, failed=0, results=b"[0,5000]", digest="sha256:0")
    recorded, following = books.ledger.finish_and_claim(claim, then, **done)
    assert recorded
    return following


def three_in_hand(books: Books) -> tuple[Claim, Claim, Claim]:
    """A chunk that a token is at, and two that it holds for later; two wait."""
    books.job(["a"], ["b"], ["c"], ["d"], ["e"])
    at, first, second = books.claimed(TOKEN), ahead(books), ahead(books, 1)
    assert first is not None
    assert second is not None
    assert books.counts() == {"total": 5, "queued": 2, "leased": 3}
    return at, first, second


def test_what_is_held_for_later_is_next_and_in_its_order(books: Books) -> None:
    at, first, second = three_in_hand(books)
    assert go_on(books, at) == first
    assert go_on(books, first) == second
    following = go_on(books, second)
    assert following is not None
    assert [item.custom_id for item in following.chunk.items] == ["d"]
    last = go_on(books, following)
    assert last is not None
    assert go_on(books, last) is None
    assert books.status().ended
    assert books.ledger.audit("job").problems == ()


def test_a_call_whose_answer_was_lost_gives_the_same_chunk(books: Books) -> None:
    at, first, _ = three_in_hand(books)
    assert ahead(books) == first
    assert ahead(books, 1) != first
    assert go_on(books, at) == go_on(books, at) == first
    assert books.counts() == {"total": 5, "queued": 2, "leased": 2, "succeeded": 1}


def test_as_many_are_left_to_others_as_one_holds(books: Books) -> None:
    books.job(["a"], ["b"], ["c"], ["d"])
    books.claimed(TOKEN)
    assert ahead(books) is not None
    assert ahead(books, 1) is None
    books.ledger.submit(books.job(job="other", seal=False), 0, chunk_of(["e"]))
    assert ahead(books, 1) is not None


def test_whoever_is_at_no_chunk_holds_none_for_later(books: Books) -> None:
    books.job(["a"], ["b"], ["c"])
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
    assert books.counts() == {"total": 5, "queued": 4, "succeeded": 1}
    assert [claim.chunk.items[0].custom_id for claim in books.finish_all()] == ["b", "c", "d", "e"]
    assert books.ledger.redis.keys("*ahead*") == []


@pytest.mark.parametrize("how", ["dies", "is released", "falls silent"])
def test_the_death_of_their_holder_says_nothing_about_them(books: Books, how: str) -> None:
    three_in_hand(books)
    if how == "dies":  # told twice: the first answer was lost
        assert [books.ledger.crashed(TOKEN, CrashedWorkerError()) for _ in range(2)] == [LANE, ""]
    elif how == "is released":
        assert [books.ledger.release(TOKEN) for _ in range(2)] == [LANE, ""]
    else:
        books.pass_time(LEASE_S)
        assert books.ledger.sweep()[0] == 3
    assert books.counts() == {"total": 5, "queued": 5}
    crashes = {claim.chunk.items[0].custom_id: claim.crashes for claim in books.finish_all()}
    assert crashes == {"a": 0 if how == "is released" else 1, **dict.fromkeys("bcde", 0)}
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
    books.job(["b"], ["c"], job="two")
    at = books.claimed(TOKEN)
    assert ahead(books) is not None
    books.ledger.delete("two")
    assert go_on(books, at) is None


def test_one_of_a_cancelled_job_ends_cancelled_where_it_is_given_back(books: Books) -> None:
    three_in_hand(books)
    books.ledger.cancel("job")
    assert books.counts() == {"total": 5, "cancelled": 2, "leased": 3}
    assert books.ledger.release(TOKEN)
    assert books.counts() == {"total": 5, "cancelled": 5}
    assert books.status().ended


def test_a_chunk_in_quarantine_is_tried_alone(books: Books) -> None:
    """None is held beside it, and it is not held beside another."""
    books.job(["a"])
    for _ in range(2):  # whole workers fall silent with it
        books.claimed()
        books.pass_time(LEASE_S)
        assert books.ledger.sweep()[0] == 1
    books.job(["b"], ["c"], ["d"], job="other")
    alone = books.claimed(TOKEN)
    assert alone.alone
    assert ahead(books) is None
    books.ledger.release(TOKEN)
    at, later = books.claimed(TOKEN), ahead(books)
    assert later is not None
    assert (at.job, later.job) == ("other", "other")  # though the other job's turn has come


def test_one_that_was_tried_alone_before_keeps_nobody_from_being_tried_alone(books: Books) -> None:
    books.job(["a", "b"])
    for _ in range(2):
        books.claimed()
        books.pass_time(LEASE_S)
        assert books.ledger.sweep()[0] == 1  # after the second time as two halves, in quarantine
    books.job(["c"], ["d"], ["e"], ["f"], job="other")
    assert books.claimed("dies").alone
    assert books.ledger.crashed("dies", CrashedWorkerError()) == LANE  # seen, so it waits among the others again
    at, later = books.claimed(TOKEN), ahead(books)
    assert later is not None
    assert (at.job, [item.custom_id for item in later.chunk.items], later.alone) == ("other", ["a"], False)
    others = [books.claimed(), books.claimed()]
    assert {claim.chunk.items[0].custom_id: claim.alone for claim in others} == {"d": False, "b": True}


def test_what_an_older_version_took_back_is_others(books: Books) -> None:
    """Its sweep knows nothing of the list of what is held for later."""
    at, first, second = three_in_hand(books)
    redis, taken = books.ledger.redis, f"job|{first.chunk_id}"
    redis.hset("lm:holders", taken, "another")
    assert go_on(books, at) == second
    assert books.ledger.release(TOKEN)
    assert redis.hget("lm:holders", taken) == b"another"
    assert books.counts() == {"total": 5, "queued": 3, "leased": 1, "succeeded": 1}
    assert redis.keys("*ahead*") == []
