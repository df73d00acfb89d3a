"""A turn: what a process does with a ticket. It claims one chunk of a lane after the other, and records its results.

While it is at one, it takes the next one for later, and begins that while the results of the first are on their way to
Redis. Where images come from other machines, it takes more of them, so that theirs are on their way: a server may take
longer to answer than a chunk to compute.
"""

from __future__ import annotations

import logging
import math
import random
import time
from collections import deque
from collections.abc import Callable, Sequence
from functools import partial

from redis.exceptions import RedisError

from jobs import logs
from jobs.content_cache import ContentCache
from jobs.errors import BrokerUnavailableError, LabelmillError, ModelRunError, NotFoundError, item_error
from jobs.going_on import Answer, Finish, GoingOn
from jobs.items import BROKEN
from jobs.lanes import TURN_S
from jobs.ledger import Claim, Done, Next
from jobs.tickets import Bell
from worker.ahead import FetchAhead
from worker.cached import run_cached
from worker.engine import ChunkResult
from worker.fetch import BLOB, is_remote
from worker.postponed import InTime, split_postponed
from worker.warm import Warm, current

__all__ = ["Turn", "serve_ticket"]

log = logging.getLogger(__name__)

#: What a chunk may take of its time limit before the rest of it is put off: to be fetched, and then to be
#: decoded and predicted.
FETCH_SHARE, PREDICT_SHARE = 0.5, 0.25
#: Seconds of work that one process holds for later; others may wait for it.
LATER_S = 0.5
#: Seconds that a turn lasts at most where chunks are held for later, as at its end the way to the servers is empty; and
#: what it may take of the time limit of its last chunk.
FAR_TURN_S, FAR_SHARE = 10.0, 0.1
#: Seconds in which the first batch of a chunk is read and decoded, for that to be begun before it is known whether
#: something waits that goes first: that waits for it.
SHORT_S = 0.005


def serve_ticket(lane: str, *, token: str, bell: Bell) -> int:
    """Have a turn in a lane; returns how many images it had.

    It ends when nothing waits there any more, after :data:`~jobs.lanes.TURN_S` (where it fetches ahead, after
    :data:`FAR_TURN_S`), or when something waits on another queue of this worker; other brokers than the ledger's Redis
    are not asked, and the turn ends with its first chunk.
    """
    return Turn(current(), lane, token, bell).serve()


class _NotOursError(Exception):
    """The chunk in hand was given back, or is another one's; ``following`` is what to go on with, if anything."""

    def __init__(self, following: Claim | None) -> None:
        super().__init__()
        self.following = following


class Turn:
    """See :func:`serve_ticket`."""

    #: Whether the last turn of this process had to give back what it held for later.
    was_cut_short = False

    def __init__(self, warm: Warm, lane: str, token: str, bell: Bell) -> None:
        self._warm = warm
        self._engine = warm.engine_of_lane(lane)
        self._model = self._engine.runtime.card.name
        self._lane = lane
        self._token = token
        self._bell = bell
        now, chance = time.monotonic(), random.uniform(0.5, 1.0)  # or those that began together would all end together
        far_s = min(FAR_TURN_S, warm.settings.chunk_time_limit_s * FAR_SHARE)
        self._until, self._far_until = now + TURN_S * chance, now + max(TURN_S, far_s) * chance
        self._later: deque[Claim] = deque()
        self._ahead = FetchAhead(warm.fetcher.fetch, self._claim_ahead)
        self._asks_for_more = True
        self._going_on: GoingOn | None = None
        self._chunks = 0
        #: What reading and decoding a batch takes.
        self._batch_s = math.inf
        rate = warm.images_per_s[self._model]
        self._image_s = 1 / rate if rate else math.inf

    def serve(self) -> int:
        """See :func:`serve_ticket`."""
        warm, images = self._warm, 0
        if warm.is_closed():
            self._leave_tickets(1)
            return 0
        claim = warm.patience(lambda: warm.ledger.claim(self._lane, self._token, lease_s=warm.settings.lease_s))
        more = claim.more if claim else 0
        try:
            while claim is not None:
                with warm.keeper.hold(self._token), logs.about(claim.job, claim.chunk_id):
                    if claim.more and warm.settings.one_redis:
                        self._leave_tickets(claim.more)
                    done, claim = self._attempt(claim)
                    images += done
                    self._chunks += 1
        finally:
            self._ahead.forget()
            if self._going_on:
                self._going_on.forget()
        Turn.was_cut_short = bool(self._later)
        if self._later:  # they wait again
            self._leave_tickets(len(self._later))
        if more and not warm.settings.one_redis:  # another broker may let us wait: not while we hold a chunk
            self._leave_tickets(more)
        return images

    def _leave_tickets(self, chunks: int) -> None:
        """For others, and for what remains after this turn."""
        try:
            self._bell.top_up(self._lane, chunks)
        except BrokerUnavailableError as exc:  # the reconciler counts them
            log.info("no tickets can be left on %s (%s)", self._lane, exc.message)

    def _attempt(self, claim: Claim) -> tuple[int, Claim | None]:
        """Serve a chunk; returns how many images it had, and the next one."""
        try:
            following = self.serve_chunk(claim)
            return len(claim.refs), following
        except _NotOursError as exc:
            return 0, exc.following
        except Exception as exc:  # whatever it is, it must not be lost with the chunk: bisection finds its item
            log.exception("chunk %s of job %s failed", claim.chunk_id, claim.job)
            error = exc if isinstance(exc, LabelmillError) else ModelRunError()
        try:
            self._settle(claim)  # it is this chunk's fault, and not that of the one before
        except _NotOursError as exc:
            return 0, exc.following
        self._warm.patience(lambda: self._warm.ledger.crashed(claim.token, error))
        return 0, None

    def serve_chunk(self, claim: Claim) -> Claim | None:
        """Classify a chunk and record its results; returns the next one."""
        warm = self._warm
        if claim.sent_ms:
            warm.meter.queued(self._model, time.time() - claim.sent_ms / 1000)
        result, hits = self._run(claim)
        self._settle(claim)
        if computed := sum(result.spent.batches):
            self._image_s = (result.spent.decode_s + result.spent.predict_s) / computed
        items = len(claim.refs)
        first = min(self._engine.batch_size, items)
        self._batch_s = first / items * (result.spent.fetch_s + result.spent.decode_s)
        result, postponed = split_postponed(result)
        if postponed:  # their images were expected, and are not asked for
            self._ahead.forget()
            for later in self._later:
                self._ahead.expect(_refs(later))
        warm.computed(self._model, "bulk", result)
        done = Done(
            succeeded=result.succeeded,
            failed=result.failed,
            results=result.lines,
            digest=self._engine.runtime.digest,
            cache_hits=hits,
            postponed=postponed,
        )
        if self._later and self._send(claim, done):
            return self._later[0]
        return self._finish(claim, done).following

    # -- the end of a chunk ---------------------------------------------------------------------------

    def _finish(self, claim: Claim, done: Done) -> Answer:
        """Record a chunk, and wait for the answer."""
        warm, began = self._warm, time.perf_counter()
        # Asked again at each repeat: while Redis was gone, the turn may have ended.
        answer = Answer(*warm.patience(lambda: warm.ledger.finish_and_claim(claim, self._next(), **done)))
        self._wrote(claim, answer, time.perf_counter() - began)
        return answer

    def _wrote(self, claim: Claim, answer: Answer, waited_s: float) -> None:
        self._warm.meter.wrote(self._model, waited_s, recorded=answer.recorded)
        if not answer.recorded:
            log.warning("chunk %s of job %s came too late: dropped", claim.chunk_id, claim.job)

    def _send(self, claim: Claim, done: Done) -> bool:
        """Record a chunk, and go on with the one that is held for later; False where the answer is to be waited for."""
        then = self._next()
        if then is None or then.is_over or self._batch_s > SHORT_S:
            return False
        is_last = len(self._later) > 1 or not self._goes_on_after(self._later[0])
        return self._go_on(Finish(claim, then, done), held=None if is_last else 0)

    def _hold_one(self, claim: Claim) -> None:
        """Take a chunk for later, beside one of files: to go on with while the results of that are written."""
        is_wanted = not self._going_on and not self._later and self._batch_s <= SHORT_S
        if is_wanted and self._warm.settings.one_redis and self._goes_on_after(claim):
            self._go_on(None, held=0)

    def _goes_on_after(self, claim: Claim) -> bool:
        """Whether the turn is likely to be on when a chunk that begins now is done."""
        lasts_s = self._image_s * claim.payload.count(b"\n")  # one that cannot be read is no fault of the one before
        return time.monotonic() + lasts_s < self._until and not self._warm.is_closed()

    def _go_on(self, finish: Finish | None, *, held: int | None) -> bool:
        ledger, lease_s = self._warm.ledger, self._warm.settings.lease_s
        try:
            self._going_on = GoingOn(ledger, self._token, self._lane, lease_s=lease_s, finish=finish, held=held)
        except RedisError as exc:
            log.info("nothing is sent ahead (%s)", type(exc).__name__)
        return self._going_on is not None

    def _look(self, claim: Claim) -> None:
        """:meth:`_settle`, if the answer is there."""
        if self._going_on and self._going_on.is_answered():
            self._settle(claim)

    def _settle(self, claim: Claim) -> None:
        """Read what came of the chunk before, if that was not waited for. Raises where this one is not ours."""
        sent, self._going_on = self._going_on, None
        if sent is None:
            return
        began = time.perf_counter()
        try:
            answer = sent.answer()
        except RedisError as exc:
            log.info("an answer was lost (%s)", type(exc).__name__)
            answer = self._finish(sent.finish.claim, sent.finish.done) if sent.finish else Answer()
        else:
            if sent.finish:
                self._wrote(sent.finish.claim, answer, time.perf_counter() - began)
        following = answer.following
        if sent.finish and (following is None or _place(following) != _place(claim)):
            self._later = deque() if following else deque([claim])  # given back with all that was held for later
            raise _NotOursError(following)
        if answer.later is not None:
            self._later.append(answer.later)
            self._ahead.expect(_refs(answer.later))

    def _next(self) -> Next | None:
        first = self._warm.queues_before(self._lane)
        if first is None:
            return None
        is_over = time.monotonic() >= (self._far_until if self._later else self._until) or self._warm.is_closed()
        return Next(self._lane, self._warm.settings.lease_s, first, is_over)

    def _run(self, claim: Claim) -> tuple[ChunkResult, int]:
        """The result lines of a chunk, and how many of them came from the content cache."""
        warm, engine = self._warm, self._engine
        refs = claim.refs
        plain = warm.fetcher.plain(refs)
        self._take_in_hand(claim, () if plain else refs)
        if plain and not claim.cache:
            self._hold_one(claim)
        else:  # Redis, or a server, is asked for something anyway
            self._settle(claim)
        limit_s = warm.settings.chunk_time_limit_s
        budget = InTime(plain or self._fetch(claim.job, refs), limit_s * FETCH_SHARE, limit_s * PREDICT_SHARE)
        if not (claim.cache and engine.runtime.decodes):
            waits, look = not plain and any(map(is_remote, refs)), partial(self._look, claim)
            return engine.run(refs, budget.fetch, top_k=claim.top_k, waits=waits, decoded=look, budget=budget), 0
        cache = ContentCache(warm.ledger, ttl_s=warm.settings.cache_ttl_s, entries=warm.settings.cache_entries)
        return warm.patience(lambda: run_cached(engine, refs, budget.fetch, cache, top_k=claim.top_k, budget=budget))

    def _fetch(self, job: str, refs: Sequence[str]) -> Callable[[str], bytes]:
        """How the items of a chunk are fetched; its blobs come in one round trip."""
        warm = self._warm
        wanted = [ref.removeprefix(BLOB) for ref in refs if ref.startswith(BLOB)]
        blobs = warm.patience(lambda: warm.ledger.blobs(job, wanted)) if wanted else {}

        def fetch(ref: str) -> bytes:
            if ref.startswith(BROKEN):
                raise item_error(ref.removeprefix(BROKEN))
            if not ref.startswith(BLOB):
                return self._ahead.fetch(ref)
            data = blobs.get(ref.removeprefix(BLOB))
            if data is None:
                raise NotFoundError("the uploaded bytes are gone")
            return data

        return fetch

    # -- for later ------------------------------------------------------------------------------------

    def _take_in_hand(self, claim: Claim, refs: Sequence[str]) -> None:
        """Begin a chunk. Where it was not held for later, nothing of that is ours any more, and ``refs`` are news."""
        self._asks_for_more = True
        if self._later and _place(self._later[0]) == _place(claim):
            self._later.popleft()
            return
        self._later.clear()
        self._ahead.forget()
        self._ahead.expect(refs)

    def _claim_ahead(self) -> Sequence[str]:
        """The references of one more chunk, which is held for later; none where there is none, or enough are held."""
        warm = self._warm
        held = sum(len(claim.refs) for claim in self._later)
        # where single calls cut one turn short after the other, most of what is fetched ahead is fetched for nothing
        most = self._chunks if self.was_cut_short else math.inf
        is_enough = len(self._later) >= most or (held and held * self._image_s >= LATER_S)
        is_over = time.monotonic() >= self._far_until - LATER_S or warm.is_closed()
        if is_enough or is_over or not self._asks_for_more or not warm.settings.one_redis:
            return ()
        try:
            claim = warm.ledger.claim_ahead(self._lane, self._token, len(self._later), lease_s=warm.settings.lease_s)
        except (RedisError, LabelmillError) as exc:  # Redis is gone: the chunk in hand must not suffer for that
            log.info("no chunk is taken for later (%s)", type(exc).__name__)
            claim = None
        if claim is None:
            self._asks_for_more = False  # until the next chunk: else each image would ask
            return ()
        self._later.append(claim)
        return _refs(claim)


def _place(claim: Claim) -> tuple[str, str]:
    return claim.job, claim.chunk_id


def _refs(claim: Claim) -> list[str]:
    """What of a chunk is on other machines; nothing of one that cannot be read, as whoever begins it will find."""
    try:
        return [ref for ref in claim.refs if is_remote(ref)]
    except (LabelmillError, TypeError) as exc:
        log.info("chunk %s of job %s cannot be read (%s)", claim.chunk_id, claim.job, type(exc).__name__)
        return []
