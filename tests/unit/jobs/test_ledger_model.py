"""The ledger held against a simple model of it: any operation, in any order, on one, several or all workers.

The model knows no chunk order and no quarantine. It knows, for each item, whether it is queued, with whom it is
leased, or how it ended, and it checks after each step that the ledger's books say the same, that they add up, that
the audit finds nothing, and that every ended item has one recorded end.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field

import fakeredis
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from jobs.errors import JobError
from jobs.ledger import COUNTS, Claim, Done, Ledger, Next
from tests.support.books import LANE, LEASE_S, Books, Seen, chunk_of
from tests.support.servers import RedisServer

JOBS = ("one", "two")
#: Deaths after which an item may at the most still be tried, for chunks of up to 5 items.
MOST_DELIVERIES = 7
#: Seconds until a job expires or is forgotten: longer than any run but for where that is meant.
KEPT_S = 1e7


@dataclass
class Model:
    """A job as the model has it: item -> 'queued', 'leased' or its end."""

    items: dict[str, str] = field(default_factory=dict)
    chunks: int = 0
    sealed: bool = False
    cancelling: bool = False
    overdue: bool = False

    def counts(self) -> dict[str, int]:
        """What the ledger should say."""
        found = Counter(self.items.values())
        return {"total": len(self.items)} | {name: found[name] for name in COUNTS if name != "total"}

    @property
    def ended(self) -> bool:
        return self.sealed and not {"queued", "leased"} & set(self.items.values())


def one_of(things: Callable[[LedgerMachine], Iterable[str]]) -> st.SearchStrategy[str]:
    """One of the things that the machine has when the rule is drawn."""
    return st.runner().flatmap(lambda machine: st.sampled_from(sorted(things(machine))))


a_job = one_of(lambda machine: machine.jobs)
a_holder = one_of(lambda machine: machine.held)
any_worker = one_of(lambda machine: machine.claims)


class LedgerMachine(RuleBasedStateMachine):
    """Producers, workers and the reconciler, at random."""

    ledger: Ledger

    def __init__(self) -> None:
        super().__init__()
        self.ledger.redis.flushall()
        self.books = Books(self.ledger, retention_s=KEPT_S, expires_s=KEPT_S)
        self.jobs: dict[str, Model] = {}
        self.claims: dict[str, Claim] = {}  # token -> every claim there ever was
        self.held: dict[str, Claim] = {}  # token -> claim whose lease holds
        self.later: dict[str, list[Claim]] = {}  # token -> what it holds beside that, in order
        self.deaths: Counter[tuple[str, str]] = Counter()
        self.named = 0
        for job in JOBS:
            self.create(job)
            self.submit(job, size=5, resend=False)

    # -- producers --------------------------------------------------------------------------------

    @rule(job=st.sampled_from(JOBS))
    def create(self, job: str) -> None:
        self.books.job(job=job, seal=False)
        self.jobs.setdefault(job, Model())

    @precondition(lambda self: self.jobs)
    @rule(job=a_job, size=st.integers(1, 5), resend=st.booleans())
    def submit(self, job: str, size: int, resend: bool) -> None:
        model = self.jobs[job]
        names = [f"{job}-{self.named + i}" for i in range(size)]
        self.named += size
        if model.sealed:
            with pytest.raises(JobError):
                self.ledger.submit(job, model.chunks, chunk_of(names))
            return
        for _ in range(1 + resend):
            self.ledger.submit(job, model.chunks, chunk_of(names))
        model.chunks += 1
        model.items |= dict.fromkeys(names, "queued")

    @precondition(lambda self: self.jobs)
    @rule(job=a_job)
    def seal(self, job: str) -> None:
        self.ledger.seal(job)
        self.jobs[job].sealed = True

    @precondition(lambda self: self.jobs)
    @rule(job=a_job)
    def cancel(self, job: str) -> None:
        model = self.jobs[job]
        self.ledger.cancel(job)
        if not model.ended:
            model.sealed = model.cancelling = True
            self._turn(model, "queued", "cancelled")

    @precondition(lambda self: self.jobs)
    @rule(job=a_job, how_many=st.integers(1, 3))
    def retry_failed(self, job: str, how_many: int) -> None:
        model = self.jobs[job]
        letters = {letter.entry for letter in self.ledger.dead_letters(job)}
        for entry, positions, names in self._failed(job):
            if model.cancelling:
                with pytest.raises(JobError):
                    self.ledger.retry(job, entry, positions, expires_s=KEPT_S)
                return
            if entry in letters:
                assert self.ledger.replay(job, entry, expires_s=KEPT_S)
                assert entry not in {letter.entry for letter in self.ledger.dead_letters(job)}
                taken = names[:1]
            else:
                taken = names[:how_many]
                for queued in (len(taken), 0):
                    assert self.ledger.retry(job, entry, positions[:how_many], expires_s=KEPT_S) == queued
            for name in taken:
                model.items[name] = "queued"
                self.deaths[job, name] = 0
            return

    @precondition(lambda self: self.jobs)
    @rule(job=a_job)
    def delete(self, job: str) -> None:
        assert self.ledger.delete(job)
        del self.jobs[job]
        self.held = {token: claim for token, claim in self.held.items() if claim.job != job}
        self.later = {token: [claim for claim in claims if claim.job != job] for token, claims in self.later.items()}

    @rule()
    def deadlines_pass(self) -> None:
        """Every job's deadline; leases are renewed far beyond it first."""
        self.ledger.renew(self._holders(), lease_s=10 * KEPT_S)
        self.books.pass_time(KEPT_S)
        for job in list(self.jobs):
            if self.jobs[job].ended:
                del self.jobs[job]  # its retention has passed too
            else:
                self.jobs[job].overdue = True
        self.sweep()
        self.ledger.renew(self._holders(), lease_s=LEASE_S)

    # -- workers ----------------------------------------------------------------------------------

    @rule(again=st.booleans())
    def claim(self, again: bool) -> None:
        claim = self.books.claim()
        if claim is None:
            waiting = [m for m in self.jobs.values() if "queued" in m.items.values()]
            assert not waiting or any(held.alone for held in self.held.values())
            return
        if again:
            assert self.books.claim(claim.token) == claim
        assert not claim.alone or not any(held.alone for held in self.held.values())
        self._lent(claim)
        self.held[claim.token] = self.claims[claim.token] = claim

    @precondition(lambda self: self.held)
    @rule(token=a_holder, again=st.booleans())
    def claim_ahead(self, token: str, again: bool) -> None:
        """Another chunk for later."""
        later = self.later.setdefault(token, [])
        for _ in range(1 + again):
            claim = self.ledger.claim_ahead(LANE, token, len(later), lease_s=LEASE_S)
        if claim is not None:
            assert not claim.alone
            assert not self.held[token].alone
            self._lent(claim)
            later.append(claim)

    @precondition(lambda self: self.held)
    @rule(token=a_holder, bad=st.integers(0, 5), again=st.booleans())
    def finish(self, token: str, bad: int, again: bool) -> None:
        claim = self.held.pop(token)
        failed = [item.custom_id for item in claim.chunk.items][:bad]
        for _ in range(1 + again):
            assert self.books.finish(claim, bad=failed)
        self._finished(claim, failed)
        self._give_back(token)

    @precondition(lambda self: self.held)
    @rule(token=a_holder, again=st.booleans())
    def finish_and_go_on(self, token: str, again: bool) -> None:
        """With what is held for later, else with what waits."""
        claim = self.held.pop(token)
        done = Done(succeeded=len(claim.chunk.items), failed=0, digest="", results=b"")
        done["results"] = b"\n".join([b"[0,1]"] * done["succeeded"])
        for _ in range(1 + again):
            recorded, following = self.ledger.finish_and_claim(claim, Next(LANE, LEASE_S), **done)
            assert recorded
        self._finished(claim)
        if self.later.get(token):
            assert following == self.later[token].pop(0)
        elif following is not None:
            self._lent(following)
        if following is not None:
            self.held[token] = self.claims[token] = following

    @precondition(lambda self: self.held)
    @rule(token=a_holder, first_put_off=st.integers(1, 4))
    def finish_some(self, token: str, first_put_off: int) -> None:
        """The rest of a chunk is put off."""
        claim = self.held[token]
        names = [item.custom_id for item in claim.chunk.items]
        if first_put_off >= len(names):
            return
        put_off = list(range(first_put_off, len(names)))
        lines = b"\n".join([b"[0,1]"] * first_put_off)
        assert self.ledger.finish(claim, succeeded=first_put_off, failed=0, results=lines, digest="", postponed=put_off)
        self._put_back(claim)
        for name in names[:first_put_off]:
            self.jobs[claim.job].items[name] = "succeeded"
        self._settle(self.jobs[claim.job])
        self._give_back(token)

    @precondition(lambda self: self.claims)
    @rule(token=any_worker, bad=st.integers(0, 5))
    def finish_late(self, token: str, bad: int) -> None:
        """Somebody else's chunk by now, or finished before, or deleted."""
        if token not in self.held:
            claim = self.claims[token]
            self.books.finish(claim, bad=[item.custom_id for item in claim.chunk.items][:bad])
            self._give_back(token)

    @precondition(lambda self: self.claims)
    @rule(token=any_worker)
    def release(self, token: str) -> None:
        assert bool(self.ledger.release(token)) == (token in self._holders())
        self._give_back(token)
        if token in self.held:
            self._put_back(self.held[token])

    @precondition(lambda self: self.claims)
    @rule(token=any_worker)
    def process_dies(self, token: str) -> None:
        assert bool(self.ledger.crashed(token)) == (token in self._holders())
        self._give_back(token)
        if token in self.held:
            self._died(self.held[token])

    @precondition(lambda self: self.jobs)
    @rule(deaths=st.integers(1, 4), silent=st.booleans())
    def one_chunk_kills_again_and_again(self, deaths: int, silent: bool) -> None:
        """A worker that takes what waits in front, and dies with it."""
        for _ in range(deaths):
            before = set(self.held)
            self.claim(again=False)
            for token in set(self.held) - before:
                if silent:
                    self._fall_silent({token})
                else:
                    self.process_dies(token)

    @rule(data=st.data())
    def workers_fall_silent(self, data: st.DataObject) -> None:
        """Some renew, the others do not."""
        holders = self._holders()
        self._fall_silent(data.draw(st.sets(st.sampled_from(holders))) if holders else set())

    @precondition(lambda self: self.claims)
    @rule(token=any_worker)
    def renew(self, token: str) -> None:
        assert self.ledger.renew([token], lease_s=LEASE_S) == ([] if token in self.held else [token])

    @rule()
    def sweep(self) -> None:
        assert self.ledger.sweep()[0] == 0
        self._expire()

    # -- what must be true, always ------------------------------------------------------------------

    @invariant()
    def the_books_are_those_of_the_model(self) -> None:
        assert self.ledger.jobs() == sorted(self.ledger.jobs(), key=list(self.jobs).index)
        for job, model in self.jobs.items():
            status = self.ledger.status(job)
            assert status.request_counts == model.counts()
            assert status.ended == model.ended
            audit = self.ledger.audit(job, first_seen=Seen())
            assert audit.is_complete
            assert audit.problems == ()
            ends = {name: [end] for name, end in model.items.items() if end not in ("queued", "leased")}
            assert self.books.recorded(job) == ends

    @invariant()
    def deliveries_are_bounded(self) -> None:
        assert all(count <= MOST_DELIVERIES for count in self.deaths.values())

    def teardown(self) -> None:
        """Whatever happened, the rest can be finished, and nothing is left behind."""
        for claim in list(self.held.values()):
            assert self.books.finish(claim)
            self._finished(claim)
        for token in self.later:
            self.ledger.release(token)
        self.held.clear()
        self.books.finish_all()
        for job in self.jobs:
            self.ledger.seal(job)
            assert self.ledger.status(job).ended
            assert all(len(ends) == 1 for ends in self.books.recorded(job).values())
        for job in self.jobs:
            self.ledger.delete(job)
        self.ledger.sweep()
        left = {key for key in self.ledger.redis.keys("*") if not key.endswith(b"isolated")}
        assert left == set()

    # -- short hands --------------------------------------------------------------------------------

    def _fall_silent(self, silent: set[str]) -> None:
        self.books.pass_time(LEASE_S / 2)
        lost = self.ledger.renew([token for token in self._holders() if token not in silent], lease_s=LEASE_S)
        assert not set(lost) & set(self.held)
        self.books.pass_time(LEASE_S / 2)
        assert self.ledger.sweep()[0] == sum((token in self.held) + len(self.later.get(token, ())) for token in silent)
        for token in silent:
            self._give_back(token)
            if token in self.held:
                self._died(self.held[token])
        self._expire()

    def _expire(self) -> None:
        """What a sweep does to jobs whose deadline has passed."""
        for model in self.jobs.values():
            if model.overdue:
                model.sealed = True
                self._turn(model, "queued", "expired")

    def _turn(self, model: Model, before: str, after: str) -> None:
        for name, state in model.items.items():
            if state == before:
                model.items[name] = after
        self._settle(model)

    def _settle(self, model: Model) -> None:
        """A job that has ended is no longer being cancelled, and has no deadline."""
        model.cancelling = model.cancelling and not model.ended
        model.overdue = model.overdue and not model.ended

    def _holders(self) -> list[str]:
        """Tokens that are at a chunk or, as that one was deleted, hold some for later only."""
        return sorted(self.held.keys() | {token for token, claims in self.later.items() if claims})

    def _lent(self, claim: Claim) -> None:
        for item in claim.chunk.items:
            assert self.jobs[claim.job].items[item.custom_id] == "queued"
            self.jobs[claim.job].items[item.custom_id] = "leased"

    def _finished(self, claim: Claim, failed: Iterable[str] = ()) -> None:
        model = self.jobs[claim.job]
        for item in claim.chunk.items:
            model.items[item.custom_id] = "failed" if item.custom_id in failed else "succeeded"
        self._settle(model)

    def _give_back(self, token: str) -> None:
        """What it holds for later waits again, unharmed."""
        for claim in self.later.pop(token, []):
            self._wait_again(claim)

    def _put_back(self, claim: Claim) -> None:
        del self.held[claim.token]
        self._wait_again(claim)

    def _wait_again(self, claim: Claim) -> None:
        model = self.jobs[claim.job]
        for item in claim.chunk.items:
            model.items[item.custom_id] = "cancelled" if model.cancelling else "queued"
        self._settle(model)

    def _died(self, claim: Claim) -> None:
        """Back to wait, or given up: that is the ledger's to decide, within its bound."""
        self._put_back(claim)
        model = self.jobs[claim.job]
        for item in claim.chunk.items:
            self.deaths[claim.job, item.custom_id] += 1
        if len(claim.chunk.items) == 1 and claim.crashes >= 2:
            (item,) = claim.chunk.items
            if self.ledger.status(claim.job).request_counts["failed"] > model.counts()["failed"]:
                assert model.items[item.custom_id] == "queued"
                model.items[item.custom_id] = "failed"
                assert item.custom_id in {letter.item.custom_id for letter in self.ledger.dead_letters(claim.job)}

    def _failed(self, job: str) -> Iterator[tuple[str, list[int], list[str]]]:
        """Stream entry, positions and custom_ids of what failed and was not retried."""
        superseded = self.ledger.superseded(job)
        for entry in self.ledger.entries(job, limit=10_000):
            lines = entry.results.split(b"\n")
            done = superseded.get(entry.id, frozenset())
            at = [i for i, line in enumerate(lines) if line.startswith(b'["') and i not in done]
            if at:
                names = [line.strip(b'"').decode() for line in entry.payload.split(b"\n")[1:]]
                yield entry.id, at, [names[i] for i in at]


def run(ledger: Ledger, examples: int) -> None:
    """Hold this ledger against the model."""
    machine = type("Machine", (LedgerMachine,), {"ledger": ledger})
    checks = [HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much]
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=examples, stateful_step_count=40, deadline=None, database=None, suppress_health_check=checks
        ),
    )


def test_the_ledger_agrees_with_its_model_on_a_real_redis(real_redis: RedisServer) -> None:
    run(real_redis.ledger, 50)


def test_the_ledger_agrees_with_its_model_on_fakeredis() -> None:
    run(Ledger(fakeredis.FakeRedis(version=(6, 2))), 10)


@pytest.mark.slow
def test_the_ledger_agrees_with_its_model_for_a_long_time(real_redis: RedisServer) -> None:
    run(real_redis.ledger, 400)
