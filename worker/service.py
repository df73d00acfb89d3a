"""What a worker's process does with a message: claim, fetch, decode, predict, finish."""

from __future__ import annotations

import base64
import binascii
import logging
import random
import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

from jobs import logs
from jobs.content_cache import ContentCache
from jobs.errors import (
    BrokerUnavailableError,
    InvalidItemError,
    LabelmillError,
    ModelRunError,
    NotFoundError,
    TooLargeError,
    item_error,
)
from jobs.items import BROKEN, Item, decode_outcomes, label_objects
from jobs.lanes import TURN_S
from jobs.ledger import Claim, Done, Next
from jobs.tickets import Bell
from worker.ahead import fetching_ahead
from worker.cached import run_cached
from worker.engine import ChunkResult, Engine
from worker.fetch import BLOB, is_remote
from worker.postponed import in_time, split_postponed
from worker.warm import Warm, current

__all__ = ["Call", "answer_all", "serve_ticket"]

log = logging.getLogger(__name__)

#: What a chunk may take of its time limit before the rest of it is put off.
OWN_SHARE = 0.5


def serve_ticket(lane: str, *, token: str, bell: Bell) -> int:
    """A turn in a lane: claim one chunk after the other and record its results; returns how many images they had.

    It ends when nothing waits there any more, after :data:`~jobs.lanes.TURN_S`, or when something waits on another
    queue of this worker; other brokers than the ledger's Redis are not asked, and the turn ends with its first chunk.
    """
    warm = current()
    engine = warm.engine_of_lane(lane)
    images = 0
    until = time.monotonic() + TURN_S * random.uniform(0.5, 1.0)  # or those that began together would all end together
    if warm.is_closed():
        _leave_tickets(bell, lane, 1)
        return 0
    claim = warm.patience(lambda: warm.ledger.claim(lane, token, lease_s=warm.settings.lease_s))
    more = claim.more if claim else 0
    while claim is not None:
        with warm.keeper.hold(token), logs.about(claim.job, claim.chunk_id):
            if claim.more and warm.settings.one_redis:
                _leave_tickets(bell, lane, claim.more)
            done, claim = _attempt(warm, engine, claim, lane, until)
            images += done
    if more and not warm.settings.one_redis:  # another broker may let us wait: not while we hold a chunk
        _leave_tickets(bell, lane, more)
    return images


def _leave_tickets(bell: Bell, lane: str, chunks: int) -> None:
    """For others, and for what remains after this turn."""
    try:
        bell.top_up(lane, chunks)
    except BrokerUnavailableError as exc:  # the reconciler counts them
        log.info("no tickets can be left on %s (%s)", lane, exc.message)


def _attempt(warm: Warm, engine: Engine, claim: Claim, lane: str, until: float) -> tuple[int, Claim | None]:
    """Serve a chunk; returns how many images it had, and the next one."""
    try:
        following = _serve(warm, engine, claim, lane, until)
        return len(claim.chunk.items), following
    except Exception as exc:  # whatever it is, it must not be lost with the chunk: bisection finds its item
        log.exception("chunk %s of job %s failed", claim.chunk_id, claim.job)
        error = exc if isinstance(exc, LabelmillError) else ModelRunError()
        warm.patience(lambda: warm.ledger.crashed(claim.token, error))
        return 0, None


def _serve(warm: Warm, engine: Engine, claim: Claim, lane: str, until: float) -> Claim | None:
    chunk, model = claim.chunk, engine.runtime.card.name
    if chunk.sent_ms:
        warm.meter.queued(model, time.time() - chunk.sent_ms / 1000)
    result, hits = _run(warm, engine, claim)
    result, postponed = split_postponed(result)
    warm.computed(model, "bulk", result)
    began = time.perf_counter()
    done = Done(
        succeeded=result.succeeded,
        failed=result.failed,
        results=result.lines,
        digest=engine.runtime.digest,
        cache_hits=hits,
        postponed=postponed,
    )
    # Asked again at each repeat: while Redis was gone, the turn may have ended.
    recorded, following = warm.patience(lambda: warm.ledger.finish_and_claim(claim, _next(warm, lane, until), **done))
    warm.meter.wrote(model, time.perf_counter() - began, recorded=recorded)
    if not recorded:
        log.warning("chunk %s of job %s came too late: dropped", claim.chunk_id, claim.job)
    return following


def _next(warm: Warm, lane: str, until: float) -> Next | None:
    first = warm.queues_before(lane)
    if first is None:
        return None
    is_over = time.monotonic() >= until or warm.is_closed()
    return Next(lane, warm.settings.lease_s, first, is_over)


def _run(warm: Warm, engine: Engine, claim: Claim) -> tuple[ChunkResult, int]:
    """The result lines of a chunk, and how many of them came from the content cache."""
    items = claim.chunk.items
    refs = [item.ref for item in items]
    plain = warm.fetcher.plain(refs)
    way = nullcontext(plain) if plain else fetching_ahead(refs, _fetch(warm, claim.job, refs), is_remote=is_remote)
    with way as next_one:
        fetch = in_time(next_one, warm.settings.chunk_time_limit_s * OWN_SHARE)
        if not (claim.cache and engine.runtime.decodes):
            return engine.run(items, fetch, top_k=claim.top_k), 0
        cache = ContentCache(warm.ledger, ttl_s=warm.settings.cache_ttl_s, entries=warm.settings.cache_entries)
        return warm.patience(lambda: run_cached(engine, items, fetch, cache, top_k=claim.top_k))


def _fetch(warm: Warm, job: str, refs: Sequence[str]) -> Callable[[str], bytes]:
    """How the items of a chunk are fetched; its blobs come in one round trip."""
    wanted = [ref.removeprefix(BLOB) for ref in refs if ref.startswith(BLOB)]
    blobs = warm.patience(lambda: warm.ledger.blobs(job, wanted)) if wanted else {}

    def fetch(ref: str) -> bytes:
        if ref.startswith(BROKEN):
            raise item_error(ref.removeprefix(BROKEN))
        if not ref.startswith(BLOB):
            return warm.fetcher.fetch(ref)
        data = blobs.get(ref.removeprefix(BLOB))
        if data is None:
            raise NotFoundError("the uploaded bytes are gone")
        return data

    return fetch


@dataclass(frozen=True)
class Call:
    """The arguments of ``tasks.classify``; without ``top_k``, as many labels as the model's card says."""

    image: str
    model: str | None = None
    top_k: int | None = None
    data: str | None = None

    def is_sound(self) -> bool:
        """Whether the arguments are of their types; a wrong one must not fail the calls beside it."""
        texts = isinstance(self.image, str) and isinstance(self.model or "", str) and isinstance(self.data or "", str)
        return texts and (self.top_k is None or (isinstance(self.top_k, int) and self.top_k > 0))


def answer_all(calls: Sequence[Call]) -> list[dict[str, Any]]:
    """A result line as a dict for each call, in order; a bad image is a failed line and raises nothing.

    Raises :class:`~jobs.errors.ModelNotServedError` for a model that is not served here.
    """
    warm = current()
    answers = {position: _refused(call) for position, call in enumerate(calls) if not call.is_sound()}
    for model in {call.model for call in calls if call.is_sound()}:
        engine = warm.engine(model) if model else warm.default_engine()
        mine = [(position, call) for position, call in enumerate(calls) if call.is_sound() and call.model == model]
        found = _answer(warm, engine, [call for _, call in mine])
        answers |= {position: answer for (position, _), answer in zip(mine, found, strict=True)}
    return [answers[position] for position in range(len(calls))]


def _refused(call: Call) -> dict[str, Any]:
    error = InvalidItemError("image, model and data are text, and top_k is a whole number above 0")
    return {"custom_id": str(call.image), "status": "failed", "error": error.as_dict()}


def _answer(warm: Warm, engine: Engine, calls: Sequence[Call]) -> list[dict[str, Any]]:
    card, digest = engine.runtime.card, engine.runtime.digest
    items = [Item(call.image, str(position)) for position, call in enumerate(calls)]
    widest = max(call.top_k or card.top_k for call in calls)
    with fetching_ahead(
        [item.ref for item in items],
        lambda ref: _bytes_of(warm, calls[int(ref)]),
        is_remote=lambda ref: calls[int(ref)].data is None and is_remote(calls[int(ref)].image),
    ) as fetch:
        done = engine.run(items, fetch, top_k=widest)
    warm.computed(card.name, "interactive", done)
    answers: list[dict[str, Any]] = []
    for call, outcome in zip(calls, decode_outcomes(done.lines), strict=True):
        if isinstance(outcome[0], str):
            error = {"code": outcome[0], "message": outcome[1]}
            answers.append({"custom_id": call.image, "status": "failed", "error": error})
            continue
        labels = label_objects(outcome[: 2 * (call.top_k or card.top_k)], card.labels)
        model = {"name": card.name, "digest": digest}
        answers.append({"custom_id": call.image, "status": "succeeded", "labels": labels, "model": model})
    return answers


def _bytes_of(warm: Warm, call: Call) -> bytes:
    if call.data is not None:
        return _inline(call.data, warm.settings.max_bytes)
    return warm.fetcher.fetch(Item(call.image, call.image).checked().ref)


def _inline(data: str, max_bytes: int) -> bytes:
    if len(data) > max_bytes * 4 // 3 + 4:
        raise TooLargeError(f"the upload is larger than {max_bytes} bytes")
    try:
        return base64.b64decode(data, validate=True)
    except binascii.Error as exc:
        raise InvalidItemError("data is not base64") from exc
