"""A finish and a claim for later whose answers are read later. On fakeredis and on a real Redis."""

from __future__ import annotations

import pytest
from redis.exceptions import ConnectionError, NoScriptError, ResponseError

from jobs.going_on import Answer, Finish, GoingOn
from jobs.ledger import Claim, Done, Next
from tests.support.books import LANE, LEASE_S, Books
from tests.support.servers import eventually, redis_server

TOKEN = "token"
DONE = Done(succeeded=1, failed=0, results=b"[0,5000]", digest="sha256:0")


def finish(claim: Claim, *unless: str, done: Done = DONE) -> Finish:
    """Of a chunk of one item."""
    return Finish(claim, Next(LANE, LEASE_S, unless), done)


def sent(books: Books, done: Finish | None, *, held: int | None = 0) -> GoingOn:
    return GoingOn(books.ledger, TOKEN, LANE, lease_s=LEASE_S, finish=done, held=held)


def name_of(claim: Claim | None) -> str:
    assert claim is not None
    return claim.chunk.items[0].custom_id


def two_in_hand(books: Books) -> tuple[Claim, Claim]:
    """A chunk that a token is at, and one that it holds for later; three wait."""
    books.job(["a"], ["b"], ["c"], ["d"], ["e"])
    at = books.claimed(TOKEN)
    later = sent(books, None).answer().later
    assert later is not None
    assert books.counts() == {"total": 5, "queued": 3, "leased": 2}
    return at, later


def test_what_is_held_is_begun_and_the_next_one_held(books: Books) -> None:
    at, later = two_in_hand(books)
    answer = sent(books, finish(at)).answer()
    assert (answer.recorded, answer.following) == (True, later)
    assert name_of(answer.later) == "c"
    assert books.counts() == {"total": 5, "queued": 2, "leased": 2, "succeeded": 1}
    last = sent(books, finish(later), held=None).answer()
    assert last == Answer(True, answer.later)
    assert [name_of(claim) for claim in [last.following, *books.finish_all()]] == ["c", "d", "e"]


def test_nothing_is_held_where_something_waits_that_goes_first(books: Books) -> None:
    at, _ = two_in_hand(books)
    books.ledger.redis.lpush("noop.interactive", "a call")
    assert sent(books, finish(at, "noop.interactive")).answer() == Answer(recorded=True)
    assert books.counts() == {"total": 5, "queued": 4, "succeeded": 1}
    assert books.ledger.redis.keys("*ahead*") == []


def test_one_that_comes_too_late_holds_nothing(books: Books) -> None:
    at, _ = two_in_hand(books)
    books.pass_time(LEASE_S)
    assert books.ledger.sweep()[0] == 2
    assert sent(books, finish(at)).answer() == Answer(recorded=False)
    assert books.counts() == {"total": 5, "queued": 5}


def test_an_answer_that_nobody_read_comes_again(books: Books) -> None:
    at, later = two_in_hand(books)
    lost = sent(books, finish(at))
    eventually(lost.is_answered)
    lost.forget()
    again = sent(books, finish(at)).answer()
    assert (again.recorded, again.following) == (True, later)
    assert name_of(again.later) == "c"
    assert books.counts() == {"total": 5, "queued": 2, "leased": 2, "succeeded": 1}
    assert books.ledger.finish_and_claim(at, Next(LANE, LEASE_S), **DONE) == (True, later)


def test_a_redis_that_came_back_without_scripts_is_given_them_again(books: Books) -> None:
    at, later = two_in_hand(books)
    books.ledger.scripts.command("finish")
    books.ledger.redis.script_flush()
    with pytest.raises(NoScriptError):
        sent(books, finish(at)).answer()
    assert sent(books, finish(at)).answer().following == later


def test_an_error_of_one_is_raised_and_the_connection_is_as_good_as_before(books: Books) -> None:
    at, later = two_in_hand(books)
    wrong = Done(succeeded=2, failed=0, results=b"[0,5000]\n[0,5000]", digest="sha256:0")
    for _ in range(3):
        with pytest.raises(ResponseError, match="MISCOUNT"):
            sent(books, finish(at, done=wrong)).answer()
    assert sent(books, finish(at)).answer().following == later


def test_where_only_the_claim_is_refused_the_finish_counts(books: Books) -> None:
    at, later = two_in_hand(books)
    going_on = GoingOn(books.ledger, TOKEN, LANE, lease_s=LEASE_S, finish=finish(at), held=0)
    answers = going_on._sent.answers()
    refusal = ResponseError("OOM command not allowed when used memory > 'maxmemory'.")
    going_on._sent.answers = lambda: [answers[0], refusal]  # type: ignore[method-assign]
    assert going_on.answer() == Answer(True, later)
    alone = sent(books, None)
    alone._sent.answers()
    alone._sent.answers = lambda: [refusal]  # type: ignore[method-assign]
    with pytest.raises(ResponseError, match="OOM"):
        alone.answer()


def test_an_answer_that_does_not_come_is_said() -> None:
    with redis_server() as server:
        books = Books(server.ledger)
        at, _ = two_in_hand(books)
        books.ledger.scripts.command("finish")  # so that Redis has it
        server.client.execute_command("CLIENT", "PAUSE", 1_000_000)
        gone = sent(books, finish(at))
        assert not gone.is_answered()
        server.kill9()
        eventually(gone.is_answered)
        with pytest.raises(ConnectionError):
            gone.answer()


def test_connections_go_back_to_those_that_are_shared(books: Books) -> None:
    two_in_hand(books)
    pool = books.ledger.redis.connection_pool
    for use in (GoingOn.answer, GoingOn.forget):
        use(sent(books, None, held=1))
        assert not pool._in_use_connections
