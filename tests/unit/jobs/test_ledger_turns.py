"""The ledger's part of a turn: a finish that claims the next chunk. On fakeredis and on a real Redis."""

from __future__ import annotations

from jobs.errors import CrashedWorkerError
from jobs.ledger import Claim, Done, Next
from jobs.tickets import token_of
from tests.support.books import LANE, LEASE_S, Books


def go_on(books: Books, claim: Claim, *unless: str) -> tuple[bool, Claim | None]:
    """Finish a chunk of one item and claim the next one."""
    then = Next(LANE, LEASE_S, unless)
    return books.ledger.finish_and_claim(claim, then, succeeded=1, failed=0, results=b"[0,5000]", digest="sha256:0")


def test_a_finish_may_claim_the_next_chunk_under_the_same_token(books: Books) -> None:
    books.job(["a"], ["b"])
    recorded, following = go_on(books, books.claimed("token"))
    assert recorded
    assert following is not None
    assert (following.chunk_id, following.token) == ("1", "token")
    assert books.counts() == {"total": 2, "leased": 1, "succeeded": 1}
    assert go_on(books, following) == (True, None)
    assert books.status().ended


def test_a_finish_whose_answer_was_lost_claims_the_same_chunk_again(books: Books) -> None:
    books.job(["a"], ["b"], ["c"])
    claim = books.claimed("token")
    assert go_on(books, claim) == go_on(books, claim)
    assert books.counts() == {"total": 3, "queued": 1, "leased": 1, "succeeded": 1}


def test_what_a_lost_answer_gave_comes_again_whatever_waits_by_now(books: Books) -> None:
    books.job(["a"], ["b"], ["c"])
    claim = books.claimed("token")
    _, following = go_on(books, claim)
    books.ledger.redis.lpush("noop.interactive", "a call")
    assert go_on(books, claim, "noop.interactive") == (True, following)
    over = Next(LANE, LEASE_S, is_over=True)
    done = Done(succeeded=1, failed=0, results=b"[0,5000]", digest="sha256:0")
    assert books.ledger.finish_and_claim(claim, over, **done) == (True, following)
    assert following is not None
    assert books.ledger.finish_and_claim(following, over, **done) == (True, None)


def test_a_finish_that_comes_too_late_claims_nothing(books: Books) -> None:
    books.job(["a"], ["b"])
    late = books.claimed("late")
    books.pass_time(LEASE_S)
    books.ledger.sweep()
    assert books.finish(books.claimed("another"))
    recorded, following = go_on(books, late)
    assert not recorded
    assert following is None
    assert books.status().late_finishes == 1


def test_nothing_is_claimed_while_something_waits_that_goes_first(books: Books) -> None:
    books.job(["a"], ["b"])
    books.ledger.redis.lpush("noop.interactive", "a call")
    assert go_on(books, books.claimed(), "other.bulk", "noop.interactive") == (True, None)
    assert books.counts() == {"total": 2, "queued": 1, "succeeded": 1}


def test_a_claim_tells_how_many_chunks_wait_behind_it(books: Books) -> None:
    books.job(*(["a"] for _ in range(3)), job="one")
    books.job(*([str(n)] for n in range(100)), job="two")
    assert [books.claimed().more, books.claimed().more] == [64, 64]
    books.ledger.delete("two")
    assert [books.claimed().more, books.claimed().more] == [1, 0]


def test_a_death_takes_nothing_from_another_process_with_the_same_ticket(books: Books) -> None:
    books.job(["a"], ["b"])
    dead, alive = (books.claimed(token_of("ticket", pid)) for pid in (7, 8))
    assert books.ledger.crashed(dead.token, CrashedWorkerError())
    assert not books.ledger.crashed(dead.token, CrashedWorkerError())
    assert books.finish(alive)
    assert books.counts() == {"total": 2, "queued": 1, "succeeded": 1}
