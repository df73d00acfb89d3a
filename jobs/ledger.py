"""The ledger: the truth about every job, in Redis, changed only by atomic Lua scripts.

A chunk is written here before its ticket is published; a worker claims it under a lease; finishing it is one step
that only the holder of the lease can take. The keys are listed in ``lua/common.lua``.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache, cached_property
from importlib.resources import files
from typing import Any, cast

import orjson
import redis
from redis.backoff import ExponentialWithJitterBackoff
from redis.exceptions import ResponseError
from redis.retry import Retry

from jobs import lanes
from jobs.errors import CrashedWorkerError, JobError, LabelmillError, UsageError
from jobs.items import Chunk, decode_chunk
from jobs.settings import Settings

__all__ = ["COUNTS", "Claim", "Entry", "JobRequest", "JobStatus", "Ledger", "connect", "new_job_id"]

#: The counts of a job; but for ``total`` they always add up to ``total``.
COUNTS = ("total", "queued", "leased", "succeeded", "failed", "cancelled", "expired")

_JOB_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
#: Seconds that a single command may take; scripts are short.
_SOCKET_TIMEOUT_S = 20.0


@dataclass(frozen=True)
class JobRequest:
    """What a producer asks for. Times in seconds, counted from the making and from the end of the job."""

    model: str
    top_k: int = 5
    digest: str = ""
    metadata: Mapping[str, str] = field(default_factory=dict)
    expires_s: float = 7 * 86_400.0
    retention_s: float = 7 * 86_400.0
    cache: bool = False

    @property
    def lane(self) -> str:
        """The queue of this job's tickets."""
        return lanes.bulk(self.model, self.digest)


@dataclass(frozen=True)
class JobStatus:
    """A job at one moment. Times in milliseconds of Redis's clock since the epoch, 0 where there is none."""

    job: str
    state: str
    sealed: bool
    model: str
    digest: str
    lane: str
    top_k: int
    request_counts: dict[str, int]
    metadata: dict[str, str]
    chunks: int
    claims: int
    recovered: int
    late_finishes: int
    created_ms: int
    expires_ms: int
    ended_ms: int

    @property
    def ended(self) -> bool:
        """True when every accepted item has its result."""
        return self.state == "ended"

    @property
    def done(self) -> int:
        """Items that have their result."""
        counts = self.request_counts
        return counts["total"] - counts["queued"] - counts["leased"]

    @classmethod
    def from_hash(cls, job: str, raw: Mapping[bytes, bytes]) -> JobStatus:
        """Read the job's hash."""
        text = {key.decode(): value.decode() for key, value in raw.items()}

        def number(name: str) -> int:
            return int(float(text.get(name, "0")))

        return cls(
            job=job,
            state=text["state"],
            sealed=text["sealed"] == "1",
            model=text["model"],
            digest=text["digest"],
            lane=text["lane"],
            top_k=number("top_k"),
            request_counts={name: number(name) for name in COUNTS},
            metadata=orjson.loads(text["metadata"]),
            chunks=number("chunks"),
            claims=number("claims"),
            recovered=number("recovered"),
            late_finishes=number("late_finishes"),
            created_ms=number("created_ms"),
            expires_ms=number("deadline_ms"),
            ended_ms=number("ended_ms"),
        )


@dataclass(frozen=True)
class Claim:
    """A chunk under a lease. ``crashes`` is how often a worker died with it before."""

    job: str
    chunk_id: str
    token: str
    payload: bytes
    top_k: int
    crashes: int = 0
    cache: bool = False

    @cached_property
    def chunk(self) -> Chunk:
        """The items."""
        return decode_chunk(self.payload)


@dataclass(frozen=True)
class Entry:
    """One closed chunk in a job's result stream. ``status`` is set where no worker saw it: cancelled, expired."""

    id: str
    chunk_id: str
    payload: bytes
    results: bytes = b""
    digest: str = ""
    status: str = ""


def new_job_id() -> str:
    """A fresh id, sortable by nothing and guessable by nobody."""
    return f"job-{secrets.token_hex(8)}"


def connect(settings: Settings, *, retries: int = 3) -> redis.Redis:
    """A client of the ledger's Redis. ``retries`` are attempts after the first, with backoff and jitter."""
    try:
        client = redis.Redis.from_url(
            settings.redis_url,
            socket_timeout=_SOCKET_TIMEOUT_S,
            socket_connect_timeout=5.0,
            retry=Retry(ExponentialWithJitterBackoff(cap=2.0, base=0.1), retries),
        )
    except ValueError as exc:
        raise UsageError(f"LABELMILL_BROKER_URL or LABELMILL_LEDGER_URL: {exc}") from None
    return client


class Ledger:
    """The jobs of one Redis. Every method is one round trip unless it says otherwise."""

    def __init__(self, client: redis.Redis, *, prefix: str = "lm:") -> None:
        self.redis = client
        self.prefix = prefix
        self._scripts: dict[str, Callable[..., Any]] = {}

    # -- producers --------------------------------------------------------------------------------

    def create(self, job: str, request: JobRequest) -> bool:
        """Make a job; False where it is already there. Raises :class:`JobError` for an id that cannot be one."""
        if not _JOB_ID.fullmatch(job):
            raise JobError(f"job id {job[:80]!a} must be 1 to 64 letters, digits, '.', '_' and '-'")
        values: dict[str, Any] = {
            "model": request.model,
            "lane": request.lane,
            "digest": request.digest,
            "top_k": request.top_k,
            "metadata": orjson.dumps(dict(request.metadata)),
            "retention_ms": int(request.retention_s * 1000),
            "cache": int(request.cache),
        }
        pairs = [part for pair in values.items() for part in pair]
        return bool(self._run("create", job, int(request.expires_s * 1000), *pairs))

    def submit(self, job: str, number: int, payload: bytes) -> int:
        """Write chunk ``number`` (0, 1, 2, ...) of a job; returns how many of its items are queued now.

        A number that was accepted before is taken for a resend and changes nothing.
        """
        return int(self._run("submit", job, number, payload))

    def seal(self, job: str) -> None:
        """Say that no more items will come."""
        self._run("seal", job)

    def cancel(self, job: str) -> None:
        """Close everything of a job that is queued; what is leased goes on. Several round trips for a long queue."""
        while not self._run("cancel", job):
            pass

    def retry(self, job: str, entry: str, positions: Sequence[int], payload: bytes, *, expires_s: float) -> int:
        """Queue failed items of one result entry again; returns how many, 0 where another call was first."""
        listed = ",".join(map(str, positions))
        return int(self._run("retry", job, entry, listed, payload, int(expires_s * 1000)))

    def delete(self, job: str) -> bool:
        """Forget a job with all it holds; False where there is none."""
        return bool(self._run("delete", job))

    # -- workers ----------------------------------------------------------------------------------

    def claim(self, lane: str, token: str, *, lease_s: float) -> Claim | None:
        """Take the next chunk of a lane under a lease; None when nothing waits.

        The same token gets the same chunk again, so that a call may be repeated after a lost answer.
        """
        answer = self._run("claim", lane, token, int(lease_s * 1000))
        if answer is None:
            return None
        job, chunk, payload, top_k, crashes, cached = answer
        return Claim(job.decode(), chunk.decode(), token, payload, int(top_k), int(crashes), cached == b"1")

    def renew(self, tokens: Sequence[str], *, lease_s: float) -> list[str]:
        """Prolong leases; returns the tokens whose chunk was given to somebody else."""
        return [token.decode() for token in self._run("renew", int(lease_s * 1000), *tokens)] if tokens else []

    def finish(self, claim: Claim, *, succeeded: int, failed: int, results: bytes, digest: str) -> bool:
        """Record the results of a chunk, once; False where the lease was lost: they are dropped and counted."""
        args = (claim.job, claim.chunk_id, claim.token, succeeded, failed, results, digest)
        return bool(self._run("finish", *args))

    def release(self, token: str) -> bool:
        """Give a chunk back unharmed."""
        return bool(self._run("release", token))

    def crashed(self, token: str, error: LabelmillError | None = None) -> bool:
        """Say that the holder of a lease died; the chunk is queued again, halved, or given up."""
        error = error or CrashedWorkerError()
        return bool(self._run("crash", token, error.code, error.message))

    def blobs(self, job: str, digests: Sequence[str]) -> dict[str, bytes]:
        """Bytes kept in the ledger, by their sha256; those that are gone are left out."""
        found = cast("list[bytes | None]", self.redis.hmget(self.key(job, "blobs"), list(digests)))
        return {name: data for name, data in zip(digests, found, strict=True) if data is not None}

    # -- the reconciler ---------------------------------------------------------------------------

    def sweep(self) -> tuple[int, dict[str, int]]:
        """Take back the leases of silent workers, expire and cancel; returns how many leases, and chunks by lane."""
        recovered, *pairs = self._run("sweep", CrashedWorkerError().message)
        queued = {pairs[i].decode(): int(pairs[i + 1]) for i in range(0, len(pairs), 2)}
        return int(recovered), queued

    # -- readers ----------------------------------------------------------------------------------

    def status(self, job: str) -> JobStatus:
        """A job's state and counts, in constant time. Raises :class:`JobError` where there is none."""
        raw = cast("dict[bytes, bytes]", self.redis.hgetall(self.key(job)))
        if b"state" not in raw:
            raise JobError(f"there is no job {job[:80]!a}")
        return JobStatus.from_hash(job, raw)

    def jobs(self) -> list[str]:
        """Ids of all jobs, oldest first."""
        return [job.decode() for job in cast("list[bytes]", self.redis.zrange(f"{self.prefix}jobs", 0, -1))]

    def entries(self, job: str, *, after: str = "0-0", limit: int = 100) -> list[Entry]:
        """Up to ``limit`` closed chunks after a stream entry's id."""
        raw = self.redis.xrange(self.key(job, "results"), min=f"({after}", count=limit)
        return [_entry(*pair) for pair in cast("list[tuple[bytes, dict[bytes, bytes]]]", raw)]

    def wait_for_entry(self, job: str, *, after: str, timeout_s: float) -> bool:
        """Wait until a chunk is closed after a stream entry's id; False when none was in time."""
        stream = {self.key(job, "results"): after}
        return bool(self.redis.xread(cast("dict[Any, Any]", stream), count=1, block=max(1, int(timeout_s * 1000))))

    def superseded(self, job: str) -> dict[str, frozenset[int]]:
        """Positions that were retried, by stream entry; readers pass them over."""
        raw = cast("dict[bytes, bytes]", self.redis.hgetall(self.key(job, "superseded")))
        return {k.decode(): frozenset(int(p) for p in v.split(b",")) for k, v in raw.items()}

    def open_payloads(self, job: str) -> Iterator[tuple[str, bytes]]:
        """Every chunk of a job that is not closed, in batches: several round trips."""
        for chunk, payload in self.redis.hscan_iter(self.key(job, "payload"), count=100):
            yield chunk.decode(), payload

    def key(self, job: str, part: str = "") -> str:
        """The key of a job, or of a part of it."""
        return f"{self.prefix}job:{job}:{part}" if part else f"{self.prefix}job:{job}"

    def _run(self, name: str, *args: Any) -> Any:
        script = self._scripts.get(name)
        if script is None:
            script = self._scripts[name] = self.redis.register_script(_source(name))
        try:
            return script(keys=[self.prefix], args=args)
        except ResponseError as exc:
            kind, _, text = str(exc).partition(" ")
            if kind in ("NOJOB", "CLOSED"):
                raise JobError(f"{text}: {args[0]}") from None
            raise


def _entry(entry: bytes, fields: Mapping[bytes, bytes]) -> Entry:
    return Entry(
        id=entry.decode(),
        chunk_id=fields[b"c"].decode(),
        payload=fields[b"i"],
        results=fields.get(b"r", b""),
        digest=fields.get(b"m", b"").decode(),
        status=fields.get(b"s", b"").decode(),
    )


@cache
def _source(name: str) -> str:
    folder = files("jobs") / "lua"
    return (folder / "common.lua").read_text() + (folder / f"{name}.lua").read_text()
