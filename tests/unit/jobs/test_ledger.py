"""The ledger: jobs, claims, write-once finishing, cancelling, expiry, retrying. On fakeredis and on a real Redis."""

from __future__ import annotations

import pytest

from jobs.errors import BrokerUnavailableError, JobError
from jobs.ledger import Claim, JobRequest, Ledger, TakenError
from producer.ids import sent_ids
from tests.support.books import LANE, LEASE_S, MODEL, Books, chunk_of
from tests.support.servers import RedisServer


def test_an_item_goes_from_queued_to_leased_to_succeeded(books: Books) -> None:
    books.job(["a", "b"])
    assert books.counts() == {"total": 2, "queued": 2}
    claim = books.claimed()
    assert [item.custom_id for item in claim.chunk.items] == ["a", "b"]
    assert books.counts() == {"total": 2, "leased": 2}
    assert books.finish(claim, bad=["b"])
    assert books.counts() == {"total": 2, "succeeded": 1, "failed": 1}
    assert books.status().ended
    assert books.recorded() == {"a": ["succeeded"], "b": ["failed"]}


def test_a_job_ends_only_when_it_is_sealed(books: Books) -> None:
    books.job(["a"], seal=False)
    books.finish_all()
    assert not books.status().ended
    books.ledger.seal("job")
    assert books.status().ended


def test_an_empty_job_ends_when_it_is_sealed(books: Books) -> None:
    assert books.job() == "job"
    assert books.status().ended


def test_the_same_chunk_sent_again_changes_nothing(books: Books) -> None:
    books.job(["a"], ["b"], seal=False)
    assert books.ledger.submit("job", 0, chunk_of(["a"])) == (2, 2)
    assert books.ledger.submit("job", 1, chunk_of(["b"])) == (2, 2)
    assert books.counts() == {"total": 2, "queued": 2}


def test_chunks_that_are_sent_together_are_answered_up_to_the_first_that_is_refused(books: Books) -> None:
    books.job(["a"], seal=False)
    ledger, several = books.ledger, [(chunk_of([name]), {}) for name in "abc"]
    assert ledger.submit_all("job", 0, several, writer="") == [(1, 1), (2, 2), (3, 3)]
    assert ledger.submit_all("job", 0, several, writer="") == [(3, 3)] * 3, "sent again, they change nothing"
    assert ledger.submit_all("job", 4, several, writer="") == []
    assert ledger.submit_all("job", 3, [(chunk_of(["d"]), {}), (b"", {}), (chunk_of(["e"]), {})], writer="") == [(4, 4)]
    ledger.redis.script_flush()
    assert ledger.submit_all("job", 4, several, writer="") == []
    assert ledger.submit_all("job", 4, several, writer="") == [(5, 5), (6, 6), (7, 7)]


def test_a_job_made_again_is_the_same_job(books: Books) -> None:
    books.job(["a"])
    assert not books.ledger.create("job", JobRequest("another"))
    assert books.status().model == MODEL


def test_a_sealed_job_takes_no_more(books: Books) -> None:
    books.job(["a"])
    with pytest.raises(JobError, match="takes no more items"):
        books.ledger.submit("job", 1, chunk_of(["b"]))


def test_only_the_producer_that_took_over_adds_to_a_job(books: Books) -> None:
    books.job(["a"], seal=False)
    ledger = books.ledger
    assert ledger.take_over("job", "first") == 1
    ledger.submit("job", 1, chunk_of(["b"]), writer="first")
    assert ledger.take_over("job", "second") == 2
    with pytest.raises(JobError, match="another producer"):
        ledger.submit("job", 2, chunk_of(["c"]), writer="first")
    with pytest.raises(JobError, match="another producer"):
        ledger.seal("job", writer="first")
    ledger.submit("job", 2, chunk_of(["c"]), writer="second")
    ledger.seal("job", writer="second")
    books.finish_all()
    assert books.recorded() == {name: ["succeeded"] for name in "abc"}


def test_a_repeated_claim_gets_the_same_chunk(books: Books) -> None:
    books.job(["a"], ["b"])
    first = books.claimed("token")
    assert books.claim("token") == first
    assert books.counts() == {"total": 2, "queued": 1, "leased": 1}


def test_a_repeated_finish_is_true_again_and_no_late_one(books: Books) -> None:
    books.job(["a"])
    claim = books.claimed()
    assert books.finish(claim)
    assert books.finish(claim)
    assert books.recorded() == {"a": ["succeeded"]}
    assert books.status().late_finishes == 0


def test_a_finish_with_a_wrong_number_of_results_changes_nothing(books: Books) -> None:
    books.job(["a", "b"])
    claim = books.claimed()
    with pytest.raises(Exception, match="MISCOUNT"):
        books.ledger.finish(claim, succeeded=1, failed=0, results=b"[0,1]", digest="")
    assert books.finish(claim)


def test_jobs_of_a_lane_take_turns(books: Books) -> None:
    books.job(["a"], ["b"], ["c"], job="large")
    books.job(["x"], job="small")
    order = [claim.job for claim in books.finish_all()]
    assert order == ["large", "small", "large", "large"]


def test_chunks_of_a_job_come_in_order(books: Books) -> None:
    books.job(["a"], ["b"], ["c"])
    assert [claim.chunk_id for claim in books.finish_all()] == ["0", "1", "2"]


def test_another_lane_has_nothing(books: Books) -> None:
    books.job(["a"])
    assert books.ledger.claim("other.bulk", "token", lease_s=LEASE_S) is None


def test_released_chunks_come_first_again(books: Books) -> None:
    books.job(["a"], ["b"])
    claim = books.claimed()
    assert books.ledger.release(claim.token) == LANE
    assert books.ledger.release(claim.token) == ""
    assert books.counts() == {"total": 2, "queued": 2}
    assert books.claimed().chunk_id == "0"
    assert not books.finish(claim)


def test_cancel_closes_what_waits_and_lets_the_leased_end(books: Books) -> None:
    books.job(["a"], ["b"], ["c"])
    claim = books.claimed()
    books.ledger.cancel("job")
    assert books.status().state == "cancelling"
    assert books.counts() == {"total": 3, "leased": 1, "cancelled": 2}
    assert books.claim() is None
    assert books.finish(claim)
    assert books.status().ended
    assert books.recorded() == {"a": ["succeeded"], "b": ["cancelled"], "c": ["cancelled"]}


def test_what_comes_back_from_a_worker_of_a_cancelled_job_is_cancelled(books: Books) -> None:
    books.job(["a"], ["b"], ["c"])
    released, crashed, silent = books.claimed(), books.claimed(), books.claimed()
    books.ledger.cancel("job")
    books.ledger.release(released.token)
    books.ledger.crashed(crashed.token)
    books.pass_time(LEASE_S)
    books.ledger.sweep()
    assert books.status().ended
    assert books.recorded() == {name: ["cancelled"] for name in "abc"}
    assert not books.finish(silent)


def test_a_cancel_that_was_cut_off_is_taken_up_by_the_sweep(books: Books) -> None:
    books.job(*[[str(i)] for i in range(450)])
    assert not books.ledger.scripts.run("cancel", "job")  # one step of several, as when its caller died
    assert books.claim() is None
    for _ in range(2):
        books.ledger.sweep()
    assert books.status().ended
    assert books.counts() == {"total": 450, "cancelled": 450}


def test_cancelling_an_ended_job_changes_nothing(books: Books) -> None:
    books.job(["a"])
    books.finish_all()
    books.ledger.cancel("job")
    assert books.counts() == {"total": 1, "succeeded": 1}


def test_what_waits_past_its_deadline_expires(books: Books) -> None:
    books.job(["a"], ["b"], seal=False)
    claim = books.claimed()
    books.ledger.renew([claim.token], lease_s=200_000.0)
    books.pass_time(99_000.0)
    books.ledger.sweep()
    assert books.counts() == {"total": 2, "queued": 1, "leased": 1}
    books.pass_time(1000.0)
    books.ledger.sweep()
    assert books.finish(claim)
    assert books.status().ended
    assert books.recorded() == {"a": ["succeeded"], "b": ["expired"]}


def test_jobs_are_listed_in_the_order_in_which_they_were_made_also_within_a_millisecond(books: Books) -> None:
    made = [books.job(job=f"job-{number}") for number in range(99, 9, -1)]
    assert books.ledger.jobs() == made


def test_an_ended_job_is_forgotten_after_its_retention(books: Books) -> None:
    books.job(["a"], job="old")
    books.job(["b"], job="young", seal=False)
    books.finish_all()
    books.pass_time(6000)
    books.ledger.sweep()
    assert books.ledger.jobs() == ["young"]
    with pytest.raises(JobError, match="no job 'old'"):
        books.ledger.status("old")
    assert not [key for key in books.ledger.redis.keys("*") if b"old" in key]


def test_failed_items_are_retried_alone_and_counted_once(books: Books) -> None:
    books.job(["a", "b", "c"])
    books.finish(books.claimed(), bad=["a", "c"])
    (entry,) = books.ledger.entries("job")
    assert books.ledger.retry("job", entry.id, [0, 2], expires_s=100) == 2
    assert books.ledger.retry("job", entry.id, [2], expires_s=100) == 0
    assert not books.status().ended
    assert books.counts() == {"total": 3, "queued": 2, "succeeded": 1}
    claim = books.claimed()
    assert [item.ref for item in claim.chunk.items] == ["/images/a", "/images/c"]
    books.finish(claim)
    assert books.status().ended
    assert books.recorded() == {name: ["succeeded"] for name in "abc"}


@pytest.mark.parametrize("positions", [[1], [7], [0, 1]])
def test_only_failed_items_can_be_retried(books: Books, positions: list[int]) -> None:
    books.job(["a", "b"])
    books.finish(books.claimed(), bad=["a"])
    (entry,) = books.ledger.entries("job")
    with pytest.raises(JobError, match="only failed items"):
        books.ledger.retry("job", entry.id, positions, expires_s=100)
    assert books.counts() == {"total": 2, "succeeded": 1, "failed": 1}


def test_a_retried_job_is_kept_again_until_it_ends(books: Books) -> None:
    books.job(["a"])
    books.finish(books.claimed(), bad=["a"])
    (entry,) = books.ledger.entries("job")
    books.ledger.retry("job", entry.id, [0], expires_s=100_000)
    books.pass_time(6000)
    books.ledger.sweep()
    assert books.counts() == {"total": 1, "queued": 1}
    books.finish_all()
    assert books.recorded() == {"a": ["succeeded"]}


def test_a_deleted_job_leaves_nothing_but_is_no_trap_for_its_workers(books: Books) -> None:
    books.job(["a"], ["b"])
    claim = books.claimed()
    assert books.ledger.delete("job")
    assert not books.ledger.delete("job")
    assert not books.finish(claim)
    assert books.ledger.crashed(claim.token) == ""
    assert books.ledger.renew([claim.token], lease_s=1) == [claim.token]
    assert books.claim() is None
    books.ledger.sweep()
    assert books.ledger.redis.keys() == []


def test_a_job_of_the_same_name_cannot_be_finished_by_an_old_holder(books: Books) -> None:
    books.job(["a"])
    old = books.claimed()
    books.ledger.delete("job")
    books.job(["z"])
    assert not books.finish(old)
    assert books.counts() == {"total": 1, "queued": 1}
    books.finish_all()
    assert books.recorded() == {"z": ["succeeded"]}


@pytest.mark.parametrize("call", ["status", "seal", "cancel", "snapshot"])
def test_a_job_that_is_not_there_is_named(ledger: Ledger, call: str) -> None:
    with pytest.raises(JobError, match="nothing-here"):
        getattr(ledger, call)("nothing-here")


@pytest.mark.parametrize("job", ["", "a b", "../x", "x" * 65, "a|b", "a:b"])
def test_a_name_that_can_be_no_key_is_no_job(ledger: Ledger, job: str) -> None:
    with pytest.raises(JobError, match="job id"):
        ledger.create(job, JobRequest(MODEL))


def test_an_empty_chunk_is_refused(books: Books) -> None:
    books.job(seal=False)
    with pytest.raises(Exception, match="EMPTY"):
        books.ledger.submit("job", 0, chunk_of([]))


# -- items that are put off -------------------------------------------------------------------------


def finish_but(books: Books, claim: Claim, postponed: list[int]) -> bool:
    lines = [b"[0,1]"] * (len(claim.chunk.items) - len(postponed))
    return books.ledger.finish(
        claim, succeeded=len(lines), failed=0, results=b"\n".join(lines), digest="", postponed=postponed
    )


def test_what_is_put_off_waits_again_and_the_rest_is_recorded(books: Books) -> None:
    books.job(["a", "b", "c", "d"])
    claim = books.claimed()
    assert finish_but(books, claim, [1, 3])
    assert finish_but(books, claim, [1, 3])
    assert books.counts() == {"total": 4, "succeeded": 2, "queued": 2}
    again = books.claimed()
    assert [item.custom_id for item in again.chunk.items] == ["b", "d"]
    assert finish_but(books, again, [1])
    assert books.ledger.audit("job").problems == ()
    books.finish_all()
    assert books.status().ended
    assert books.recorded() == {name: ["succeeded"] for name in "abcd"}


def test_what_is_put_off_of_a_cancelled_job_is_cancelled(books: Books) -> None:
    books.job(["a", "b"])
    claim = books.claimed()
    books.ledger.cancel("job")
    assert finish_but(books, claim, [1])
    assert books.recorded() == {"a": ["succeeded"], "b": ["cancelled"]}
    assert books.status().ended


def test_a_chunk_of_which_nothing_is_done_cannot_be_put_off(books: Books) -> None:
    books.job(["a"])
    with pytest.raises(Exception, match="MISCOUNT"):
        finish_but(books, books.claimed(), [0])
    assert books.counts() == {"total": 1, "leased": 1}


def test_a_producer_that_begins_again_misses_nothing_that_is_put_off_while_it_looks(real_redis: RedisServer) -> None:
    real_redis.client.flushall()
    books = Books(real_redis.ledger)
    # long enough for Redis to keep the chunks in a real table, which it does not give in one piece
    names = [[f"{number}-{letter}-{'n' * 60}" for letter in "ab"] for number in range(600)]
    books.job(*names)
    claims = [books.claimed() for _ in names]
    looking = sent_ids(books.ledger, "job")
    seen = {next(looking)}
    for claim in claims:
        assert finish_but(books, claim, [1])
    seen.update(looking)
    assert seen == {name for chunk in names for name in chunk}


# -- a Redis that is not as it was ------------------------------------------------------------------


def test_a_chunk_behind_one_that_redis_has_lost_sends_its_producer_back(books: Books) -> None:
    books.job(["a"], seal=False)
    with pytest.raises(TakenError, match="chunk 1 comes first"):
        books.ledger.submit("job", 2, chunk_of(["c"]))
    with pytest.raises(TakenError, match="chunk 1 is not here"):
        books.ledger.seal("job", chunks=2)
    assert not books.status().sealed


def test_a_redis_without_its_replicas_is_waited_for(real_redis: RedisServer) -> None:
    books = Books(real_redis.ledger)
    real_redis.client.flushall()
    books.job(["a"])
    claim = books.claimed()
    real_redis.client.config_set("min-replicas-to-write", 1)
    try:
        with pytest.raises(BrokerUnavailableError, match="NOREPLICAS"):
            books.finish(claim)
    finally:
        real_redis.client.config_set("min-replicas-to-write", 0)
    assert books.finish(claim)
