"""The ledger: the truth about every job, in Redis, changed only by atomic Lua scripts.

A chunk is written here before its ticket is published; a worker claims it under a lease; finishing it is one step
that only the holder of the lease can take. The keys are listed in ``lua/common.lua``.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import chain, takewhile
from typing import TYPE_CHECKING, Any, Unpack, cast

import orjson
import redis

from jobs.errors import CrashedWorkerError, JobError, LabelmillError
from jobs.records import COUNTS, Claim, DeadLetter, Done, Entry, JobRequest, JobStatus, Next, Page, Queued, positions
from jobs.scripts import MissingBlobError, Scripts, TakenError

if TYPE_CHECKING:
    from jobs.audit import Audit

__all__ = [
    "COUNTS",
    "Claim",
    "DeadLetter",
    "Done",
    "Entry",
    "JobRequest",
    "JobStatus",
    "Ledger",
    "MissingBlobError",
    "Next",
    "Queued",
    "TakenError",
    "check_job_id",
    "new_job_id",
]

_JOB_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


def new_job_id() -> str:
    """A fresh id, sortable by nothing and guessable by nobody."""
    return f"job-{secrets.token_hex(8)}"


def check_job_id(job: str) -> str:
    """The id; raises :class:`JobError` where it cannot be one."""
    if not _JOB_ID.fullmatch(job):
        raise JobError(f"job id {job[:80]!a} must be 1 to 64 letters, digits, '.', '_' and '-'")
    return job


class Ledger:
    """The jobs of one Redis. Every method is one round trip unless it says otherwise."""

    def __init__(self, client: redis.Redis, *, prefix: str = "lm:") -> None:
        self.redis = client
        self.prefix = prefix
        self.scripts = Scripts(client, prefix)

    # -- producers --------------------------------------------------------------------------------

    def create(self, job: str, request: JobRequest) -> bool:
        """Make a job; False where it is already there. Raises :class:`JobError` for an id that cannot be one."""
        check_job_id(job)
        values: dict[str, Any] = {
            "model": request.model,
            "lane": request.lane,
            "digest": request.digest,
            "top_k": request.top_k,
            "metadata": orjson.dumps(dict(request.metadata)),
            "retention_ms": int(request.retention_s * 1000),
            "cache": int(request.cache),
            "webhook": request.webhook,
        }
        pairs = [part for pair in values.items() for part in pair]
        return bool(self.scripts.run("create", job, int(request.expires_s * 1000), *pairs))

    def take_over(self, job: str, writer: str) -> int:
        """Be the job's only producer from now on, as ``writer``; returns how many chunks it has accepted.

        Any other producer that still sends gets a :class:`JobError`, so that two never add to one job.
        """
        return int(self.scripts.run("take_over", job, writer))

    def submit(
        self, job: str, number: int, payload: bytes, *, writer: str = "", blobs: Mapping[str, bytes] | None = None
    ) -> Queued:
        """Write chunk ``number`` (0, 1, 2, ...) of a job; returns what of the job is queued now.

        A number that was accepted before is taken for a resend and changes nothing. ``blobs`` are the bytes that the
        chunk's ``blob:<sha256>`` references name; those that the job holds already may be left out.
        Raises :class:`MissingBlobError`, with nothing done, where that was wrong.
        """
        pairs = chain.from_iterable((blobs or {}).items())
        items, chunks = self.scripts.run("submit", job, number, payload, writer, *pairs)
        return Queued(int(items), int(chunks))

    def submit_all(
        self, job: str, number: int, chunks: Sequence[tuple[bytes, Mapping[str, bytes]]], *, writer: str
    ) -> list[Queued]:
        """Write the chunks from ``number`` on, with their blobs, in one round trip; answers up to the first refusal.

        Of those that are left :meth:`submit` says why.
        """
        calls = [
            (job, number + place, payload, writer, *chain.from_iterable(blobs.items()))
            for place, (payload, blobs) in enumerate(chunks)
        ]
        answers = self.scripts.run_all("submit", calls)
        return [Queued(*map(int, answer)) for answer in takewhile(lambda a: not isinstance(a, Exception), answers)]

    def seal(self, job: str, *, writer: str = "", chunks: int = 0) -> None:
        """Say that no more items will come.

        Raises :class:`TakenError` where there are fewer than the ``chunks`` that the job had accepted.
        """
        self.scripts.run("seal", job, writer, chunks)

    def cancel(self, job: str) -> None:
        """Close everything of a job that is queued; what is leased goes on. Several round trips for a long queue."""
        while not self.scripts.run("cancel", job):
            pass

    def retry(self, job: str, entry: str, positions: Sequence[int], *, expires_s: float) -> int:
        """Queue failed items of one result entry again; returns how many, 0 where another call was first.

        Raises :class:`JobError` where there is no such entry or one of the items has not failed.
        """
        listed = ",".join(map(str, positions))
        return int(self.scripts.run("retry", job, entry, listed, int(expires_s * 1000)))

    def delete(self, job: str) -> bool:
        """Forget a job with all it holds; False where there is none."""
        return bool(self.scripts.run("delete", job))

    # -- workers ----------------------------------------------------------------------------------

    def claim(self, lane: str, token: str, *, lease_s: float) -> Claim | None:
        """Take the next chunk of a lane under a lease; None when nothing waits.

        The same token gets the same chunk again, so that a call may be repeated after a lost answer.
        """
        answer = self.scripts.run("claim", lane, token, int(lease_s * 1000))
        return Claim.from_answer(token, answer)

    def claim_ahead(self, lane: str, token: str, held: int, *, lease_s: float) -> Claim | None:
        """Take another chunk for later, beside the one that the token is at; None when nothing waits.

        ``held`` is how many it holds for later, so that a call may be repeated after a lost answer.
        :meth:`finish_and_claim` gives them in their order. They wait again, unharmed, where that claims nothing, and
        where the chunk that the token is at is released, or its holder dies.
        """
        return Claim.from_answer(token, self.scripts.run("claim_ahead", lane, token, int(lease_s * 1000), held))

    def renew(self, tokens: Sequence[str], *, lease_s: float) -> list[str]:
        """Prolong leases; returns the tokens whose chunk was given to somebody else."""
        return [token.decode() for token in self.scripts.run("renew", int(lease_s * 1000), *tokens)] if tokens else []

    def finish(self, claim: Claim, **done: Unpack[Done]) -> bool:
        """Record the results of a chunk, once; False where the lease was lost: they are dropped and counted.

        The same call again, after a lost answer, says True again.
        """
        return self.finish_and_claim(claim, None, **done)[0]

    def finish_and_claim(self, claim: Claim, then: Next | None, **done: Unpack[Done]) -> tuple[bool, Claim | None]:
        """The same, and in the same step the next chunk under the same token: one that it holds, else one that waits.

        There is none where nothing waits in that lane, or something waits on a queue that goes first.
        """
        recorded, answer = self.scripts.run("finish", *self.finish_args(claim, then, done))
        return bool(recorded), Claim.from_answer(claim.token, answer)

    def finish_args(self, claim: Claim, then: Next | None, done: Done) -> tuple[Any, ...]:
        """What ``lua/finish.lua`` is given."""
        args: tuple[Any, ...] = (claim.job, claim.chunk_id, claim.token, done["succeeded"], done["failed"])
        args += (done["results"], done["digest"], done.get("cache_hits", 0))
        args += (",".join(map(str, done.get("postponed", ()))),)
        if then:
            args += (then.lane, int(then.lease_s * 1000), int(then.is_over), *then.unless)
        return args

    def release(self, token: str) -> str:
        """Give a chunk back unharmed; returns the lane that waits for a new ticket, "" where nothing was held."""
        return _text(self.scripts.run("release", token))

    def crashed(self, token: str, error: LabelmillError | None = None) -> str:
        """Say that the holder of a lease died; the chunk is queued again, halved, or given up.

        Returns the lane that waits for new tickets, "" where nothing was held.
        """
        error = error or CrashedWorkerError()
        return _text(self.scripts.run("crash", token, error.code, error.message))

    def blobs(self, job: str, digests: Sequence[str]) -> dict[str, bytes]:
        """Bytes kept in the ledger, by their sha256; those that are gone are left out."""
        found = cast("list[bytes | None]", self.redis.hmget(self.key(job, "blobs"), list(digests)))
        return {name: data for name, data in zip(digests, found, strict=True) if data is not None}

    # -- the reconciler ---------------------------------------------------------------------------

    def sweep(self) -> tuple[int, dict[str, int]]:
        """Take back the leases of silent workers, expire and cancel.

        Returns how many leases, and how many chunks of each lane could be claimed now.
        """
        return _swept(self.scripts.run("sweep", CrashedWorkerError().message))

    def sweep_if_elected(self, name: str, *, term_s: float) -> tuple[int, dict[str, int]] | None:
        """The same for one of many, the first that asks; None for all others until it has not asked for ``term_s``."""
        answer = self.scripts.run("sweep", CrashedWorkerError().message, name, int(term_s * 1000))
        return None if answer is None else _swept(answer)

    # -- dead letters -----------------------------------------------------------------------------

    def dead_letters(self, job: str) -> Iterator[DeadLetter]:
        """Every item of a job that was given up, in no order; several round trips."""
        for entry, raw in self.redis.hscan_iter(self.key(job, "dead"), count=100):
            yield DeadLetter.from_json(job, entry.decode(), raw)

    def dead_letter(self, job: str, entry: str) -> DeadLetter:
        """One of them. Raises :class:`JobError` where there is none."""
        raw = cast("bytes | None", self.redis.hget(self.key(job, "dead"), entry))
        if raw is None:
            raise JobError(f"job {job[:80]!a} has no dead letter {entry[:40]!a}")
        return DeadLetter.from_json(job, entry, raw)

    def replay(self, job: str, entry: str, *, expires_s: float) -> bool:
        """Try a dead letter again; False where another call was first. Two round trips."""
        return self.retry(self.dead_letter(job, entry).job, entry, [0], expires_s=expires_s) > 0

    def drop(self, job: str, entry: str) -> bool:
        """Forget a dead letter; its result stays failed. False where there is none."""
        return bool(self.redis.hdel(self.key(job, "dead"), entry))

    # -- readers ----------------------------------------------------------------------------------

    def status(self, job: str) -> JobStatus:
        """A job's state and counts, in constant time. Raises :class:`JobError` where there is none."""
        raw = cast("dict[bytes, bytes]", self.redis.hgetall(self.key(job)))
        if b"state" not in raw:
            raise JobError(f"there is no job {job[:80]!a}")
        return JobStatus.from_hash(job, raw)

    def statuses(self, jobs: Sequence[str]) -> list[JobStatus]:
        """The same of many jobs at once, without those that are gone."""
        with self.redis.pipeline(transaction=False) as pipe:
            for job in jobs:
                pipe.hgetall(self.key(job))
            found = list(zip(jobs, pipe.execute(), strict=True))
        return [JobStatus.from_hash(job, raw) for job, raw in found if b"state" in raw]

    def jobs(self) -> list[str]:
        """Ids of all jobs, oldest first."""
        return [job.decode() for job in cast("list[bytes]", self.redis.zrange(f"{self.prefix}jobs", 0, -1))]

    def entries(self, job: str, *, after: str = "0-0", limit: int = 100, wait_s: float = 0.0) -> list[Entry]:
        """Up to ``limit`` closed chunks after a stream entry's id; waits up to ``wait_s`` for the first of them."""
        return self.page(job, after=after, limit=limit, wait_s=wait_s).entries

    def page(self, job: str, *, after: str = "0-0", limit: int = 100, wait_s: float = 0.0) -> Page:
        """The same with how the job stands right after it: Redis lets what follows a command wait with it."""
        stream = self.key(job, "results")
        with self.redis.pipeline(transaction=False) as pipe:
            if wait_s > 0:
                pipe.xread(cast("Any", {stream: after}), count=limit, block=max(1, int(wait_s * 1000)))
            else:
                pipe.xrange(stream, min=f"({after}", count=limit)
            pipe.hmget(self.key(job), "state", "queued", "leased")
            pipe.exists(self.key(job, "superseded"))
            raw, (state, *still_open), retried = pipe.execute()
        if wait_s > 0:
            raw = raw[0][1] if raw else []
        entries, open_items = [_entry(*pair) for pair in raw], sum(int(count or 0) for count in still_open)
        return Page(entries, state is not None, state == b"ended", bool(retried), open_items)

    def entry(self, job: str, entry: str) -> Entry:
        """One closed chunk by its stream entry's id. Raises :class:`JobError` where there is none."""
        found = cast(
            "list[tuple[bytes, dict[bytes, bytes]]]", self.redis.xrange(self.key(job, "results"), entry, entry)
        )
        if not found:
            raise JobError(f"job {job[:80]!a} has no result {entry[:40]!a}")
        return _entry(*found[0])

    def last_entry(self, job: str) -> str:
        """The id of the stream entry that was written last; ``0-0`` where there is none."""
        last = cast("list[tuple[bytes, Any]]", self.redis.xrevrange(self.key(job, "results"), count=1))
        return last[0][0].decode() if last else "0-0"

    def superseded(self, job: str) -> dict[str, frozenset[int]]:
        """Positions that were retried, by stream entry; readers pass them over."""
        raw = cast("dict[bytes, bytes]", self.redis.hgetall(self.key(job, "superseded")))
        return positions(raw)

    def open_payloads(self, job: str) -> Iterator[tuple[str, bytes]]:
        """Every chunk of a job that is not closed, in batches: several round trips.

        A chunk that is closed meanwhile may be left out, for it is among the :meth:`entries` then. One that is halved
        meanwhile, or whose rest is put off, could be missed, so the walk begins again: a chunk may come twice.
        """
        while True:
            before = self._renamed(job)
            for chunk, payload in self.redis.hscan_iter(self.key(job, "payload"), count=100):
                yield chunk.decode(), payload
            if self._renamed(job) == before:
                return

    def _renamed(self, job: str) -> list[bytes | None]:
        """Counters that grow whenever items of an open chunk go into one of another name."""
        return cast("list[bytes | None]", self.redis.hmget(self.key(job), ["recovered", "put_off"]))

    def audit(self, job: str, *, first_seen: Callable[[str], bool] | None = None) -> Audit:
        """Go through a job's books, see :func:`jobs.audit.audit`."""
        from jobs.audit import audit

        return audit(self, job, first_seen=first_seen)

    def snapshot(self, job: str) -> Any:
        """One moment of a job's books, for the audit: raw answer of ``lua/snapshot.lua``."""
        return self.scripts.run("snapshot", job)

    def cache_put(self, *args: Any) -> Any:
        """Lines for the content cache: see ``lua/cache.lua``."""
        return self.scripts.run("cache", *args)

    def webhook(self, *args: Any) -> Any:
        """What is due, a claim, or an end: see ``lua/webhook.lua``."""
        return self.scripts.run("webhook", *args)

    def key(self, job: str, part: str = "") -> str:
        """The key of a job, or of a part of it."""
        return f"{self.prefix}job:{job}:{part}" if part else f"{self.prefix}job:{job}"


def _swept(answer: list[Any]) -> tuple[int, dict[str, int]]:
    recovered, *pairs = answer
    return int(recovered), {pairs[i].decode(): int(pairs[i + 1]) for i in range(0, len(pairs), 2)}


def _entry(entry: bytes, fields: Mapping[bytes, bytes]) -> Entry:
    return Entry(
        id=entry.decode(),
        chunk_id=fields[b"c"].decode(),
        payload=fields[b"i"],
        results=fields.get(b"r", b""),
        digest=fields.get(b"m", b"").decode(),
        status=fields.get(b"s", b"").decode(),
    )


def _text(answer: bytes | None) -> str:
    return answer.decode() if answer else ""
