"""What the ledger does when workers die: leases, bisection, quarantine, dead letters."""

from __future__ import annotations

import math

import pytest

from jobs.errors import BrokerUnavailableError, CrashedWorkerError, JobError, TimeLimitError
from jobs.ledger import Claim, JobRequest
from tests.support.books import LEASE_S, Books
from tests.support.servers import RedisServer, eventually

#: Chunk sizes that bisection is tried on.
SIZES = [1, 2, 3, 7, 32]


def names(count: int) -> list[str]:
    return [f"i{n}" for n in range(count)]


def ids(claim: Claim) -> set[str]:
    return {item.custom_id for item in claim.chunk.items}


def test_a_silent_worker_loses_its_chunk_to_the_next(books: Books) -> None:
    books.job(["a"])
    lost = books.claimed()
    assert books.ledger.sweep() == (0, {"noop.bulk": 0})
    books.pass_time(LEASE_S)
    assert books.ledger.sweep() == (1, {"noop.bulk": 1})
    again = books.claimed()
    assert (again.chunk_id, again.crashes) == (lost.chunk_id, 1)
    assert books.finish(again)
    assert not books.finish(lost)
    assert books.recorded() == {"a": ["succeeded"]}
    assert (books.status().late_finishes, books.status().recovered) == (1, 1)


def test_one_of_many_sweeps_until_it_has_not_asked_for_its_term(books: Books) -> None:
    def is_elected(name: str, term_s: float = LEASE_S) -> bool:
        return books.ledger.sweep_if_elected(name, term_s=term_s) is not None

    assert [is_elected("one"), is_elected("other"), is_elected("one"), is_elected("other")] == [True, False] * 2
    assert is_elected("one", term_s=0.001)
    assert eventually(lambda: is_elected("other"))
    assert not is_elected("one")


def test_whoever_is_not_elected_takes_nothing_back(books: Books) -> None:
    books.job(["a"])
    assert books.ledger.sweep_if_elected("one", term_s=10 * LEASE_S) == (0, {"noop.bulk": 1})
    books.claimed()
    books.pass_time(LEASE_S)
    assert books.ledger.sweep_if_elected("other", term_s=LEASE_S) is None
    assert books.status().recovered == 0
    assert books.ledger.sweep_if_elected("one", term_s=LEASE_S) == (1, {"noop.bulk": 1})


def test_a_renewed_lease_holds(books: Books) -> None:
    books.job(["a"])
    claim = books.claimed()
    books.pass_time(LEASE_S / 2)
    assert books.ledger.renew([claim.token, "unknown"], lease_s=LEASE_S) == ["unknown"]
    books.pass_time(LEASE_S * 3 / 4)
    assert books.ledger.sweep()[0] == 0
    assert books.finish(claim)


def test_a_worker_that_comes_back_before_anyone_noticed_keeps_its_chunk(books: Books) -> None:
    books.job(["a"])
    claim = books.claimed()
    books.pass_time(10 * LEASE_S)
    assert books.finish(claim)
    assert books.ledger.sweep()[0] == 0


def test_a_worker_that_comes_back_while_another_works_is_dropped(books: Books) -> None:
    books.job(["a", "b"])
    paused = books.claimed()
    books.pass_time(LEASE_S)
    books.ledger.sweep()
    second = books.claimed()
    assert not books.finish(paused, bad=["a", "b"])
    assert books.ledger.renew([paused.token], lease_s=LEASE_S) == [paused.token]
    assert books.ledger.release(paused.token) == ""
    assert books.ledger.crashed(paused.token) == ""
    assert books.finish(second)
    assert books.recorded() == {"a": ["succeeded"], "b": ["succeeded"]}


def kill(books: Books, claim: Claim, *, seen: bool) -> None:
    """The worker of a chunk dies: its main process sees it, or the whole worker falls silent."""
    if seen:
        books.ledger.crashed(claim.token)
    else:
        books.pass_time(LEASE_S)
        books.ledger.sweep()


@pytest.mark.parametrize("seen", [True, False], ids=["seen", "silent"])
@pytest.mark.parametrize("size", SIZES)
def test_a_poison_item_is_found_within_a_bounded_number_of_deliveries(books: Books, size: int, seen: bool) -> None:
    poison = f"i{size // 2}"
    books.job(names(size))
    deaths = 0
    while claim := books.claim():
        if poison in ids(claim):
            deaths += 1
            kill(books, claim, seen=seen)
        else:
            assert books.finish(claim)
    assert deaths <= 4 + math.ceil(math.log2(size))
    assert books.status().ended
    assert books.recorded() == {name: ["failed" if name == poison else "succeeded"] for name in names(size)}
    (letter,) = books.ledger.dead_letters("job")
    assert (letter.item.custom_id, letter.item.ref) == (poison, f"/images/{poison}")
    assert (letter.code, letter.deliveries) == ("crashed_worker", deaths)


@pytest.mark.parametrize("threads", [2, 4, 8])
def test_what_dies_beside_a_poison_item_in_the_same_process_is_never_blamed(books: Books, threads: int) -> None:
    """A process of several threads falls silent with all that it holds, each time that one of them has the poison."""
    books.job(*[names(40)[start : start + 4] for start in range(0, 40, 4)])
    rounds = 0
    while not books.status().ended:
        rounds += 1
        assert rounds < 100
        held = [claim for _ in range(threads) if (claim := books.claim())]
        if any("i17" in ids(claim) for claim in held):
            books.pass_time(LEASE_S)
            books.ledger.sweep()
        else:
            assert all(books.finish(claim) for claim in held)
    assert books.recorded() == {name: ["failed" if name == "i17" else "succeeded"] for name in names(40)}


def test_quarantined_chunks_are_tried_one_at_a_time_after_all_others(books: Books) -> None:
    books.job(["a", "b"], ["c"])
    for _ in range(2):
        first = books.claimed()
        assert ids(first) == {"a", "b"}
        kill(books, first, seen=False)
    assert books.ledger.sweep() == (0, {"noop.bulk": 2})
    assert ids(books.claimed()) == {"c"}
    alone = books.claimed()
    assert alone.alone
    assert books.claim() is None
    assert books.ledger.sweep() == (0, {"noop.bulk": 0})
    books.ledger.release(alone.token)
    assert books.ledger.sweep() == (0, {"noop.bulk": 1})
    again = books.claimed()
    assert (again.chunk_id, again.alone) == (alone.chunk_id, True)
    assert books.finish(again)
    assert books.finish(books.claimed())
    assert books.recorded() == {"a": ["succeeded"], "b": ["succeeded"]}


def test_several_poison_items_in_one_chunk_are_all_found(books: Books) -> None:
    poison = {"i1", "i2", "i9"}
    books.job(names(12))
    while claim := books.claim():
        if poison & ids(claim):
            books.ledger.crashed(claim.token, TimeLimitError())
        else:
            books.finish(claim)
    assert {name for name, ends in books.recorded().items() if ends == ["failed"]} == poison
    assert {letter.code for letter in books.ledger.dead_letters("job")} == {"time_limit"}


def test_a_dead_letter_is_replayed_once_and_gone(books: Books) -> None:
    books.job(["a"])
    for _ in range(3):
        books.ledger.crashed(books.claimed().token)
    (letter,) = books.ledger.dead_letters("job")
    assert books.ledger.dead_letter("job", letter.entry) == letter
    assert letter.message == CrashedWorkerError().message
    assert books.ledger.replay("job", letter.entry, expires_s=100)
    assert list(books.ledger.dead_letters("job")) == []
    assert books.counts() == {"total": 1, "queued": 1}
    books.finish_all()
    assert books.recorded() == {"a": ["succeeded"]}


def test_a_replayed_dead_letter_that_kills_again_is_one_again(books: Books) -> None:
    books.job(["a"])
    for _ in range(2):
        for _ in range(3):
            books.ledger.crashed(books.claimed().token)
        (letter,) = books.ledger.dead_letters("job")
        books.ledger.replay("job", letter.entry, expires_s=100)
    assert books.counts() == {"total": 1, "queued": 1}


def test_a_dropped_dead_letter_leaves_its_failed_result(books: Books) -> None:
    books.job(["a"])
    for _ in range(3):
        books.ledger.crashed(books.claimed().token)
    (letter,) = books.ledger.dead_letters("job")
    assert books.ledger.drop("job", letter.entry)
    assert not books.ledger.drop("job", letter.entry)
    with pytest.raises(JobError, match="no dead letter"):
        books.ledger.replay("job", letter.entry, expires_s=100)
    assert books.recorded() == {"a": ["failed"]}


def test_retrying_a_given_up_item_takes_its_dead_letter_away(books: Books) -> None:
    books.job(["a"])
    for _ in range(3):
        books.ledger.crashed(books.claimed().token)
    (entry,) = books.ledger.entries("job")
    books.ledger.retry("job", entry.id, [0], expires_s=100)
    assert list(books.ledger.dead_letters("job")) == []


def test_a_full_redis_still_renews_finishes_and_takes_back(real_redis: RedisServer) -> None:
    real_redis.client.flushall()
    books = Books(real_redis.ledger)
    books.job(["a"], ["b"], ["c"])
    first, second, third = books.claimed(), books.claimed(), books.claimed()
    books.ledger.renew([first.token, second.token], lease_s=10 * LEASE_S)
    books.pass_time(LEASE_S)
    real_redis.client.config_set("maxmemory", 1)
    try:
        with pytest.raises(BrokerUnavailableError, match="OOM"):
            books.ledger.create("another", JobRequest("noop"))
        assert books.ledger.renew([first.token], lease_s=LEASE_S) == []
        assert books.finish(first)
        assert books.ledger.crashed(second.token)
        swept = books.ledger.sweep_if_elected("one", term_s=1)
        assert swept
        assert swept[0] == 1
        assert not books.finish(third)
        assert books.finish(books.claimed())
        books.ledger.cancel("job")
    finally:
        real_redis.client.config_set("maxmemory", 0)
    assert books.status().ended
    assert books.counts() == {"total": 3, "succeeded": 2, "cancelled": 1}
