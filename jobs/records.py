"""What the ledger takes and gives: requests, states, claims, closed chunks, dead letters. Plain data."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, NamedTuple, NotRequired, TypedDict

import orjson

from jobs import lanes
from jobs.errors import UsageError
from jobs.items import Chunk, Item, decode_chunk, decode_refs

__all__ = [
    "COUNTS",
    "Claim",
    "DeadLetter",
    "Done",
    "Entry",
    "JobRequest",
    "JobStatus",
    "Next",
    "Page",
    "Queued",
    "is_digest",
    "positions",
]

#: The counts of a job; but for ``total`` they always add up to ``total``.
COUNTS = ("total", "queued", "leased", "succeeded", "failed", "cancelled", "expired")
#: How a model file is named in full.
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
#: More labels than a model has, and a time that is none: numbers that Redis and Lua keep as they are.
MOST_LABELS, LONGEST_S = 1_000_000, 100 * 365 * 86_400


@dataclass(frozen=True)
class JobRequest:
    """What a producer asks for. Times in seconds, counted from the making and from the end of the job.

    Raises :class:`~jobs.errors.UsageError` where that is nothing that a ledger can keep: everybody reads all jobs.
    """

    model: str
    top_k: int = 5
    digest: str = ""
    metadata: Mapping[str, str] = field(default_factory=dict)
    expires_s: float = 7 * 86_400.0
    retention_s: float = 7 * 86_400.0
    cache: bool = False
    webhook: str = ""

    def __post_init__(self) -> None:
        for what, is_right, wanted in (
            ("model", _is_text(self.model) and self.model, "a name"),
            ("top_k", _is_whole(self.top_k) and 0 < self.top_k <= MOST_LABELS, f"1 to {MOST_LABELS:,}"),
            ("digest", self.digest == "" or is_digest(self.digest), "sha256: and 64 hexadecimal digits"),
            ("metadata", _are_texts(self.metadata), "texts by name"),
            ("expires_s", _is_time(self.expires_s), f"seconds above 0, to {LONGEST_S:,}"),
            ("retention_s", _is_time(self.retention_s), f"seconds above 0, to {LONGEST_S:,}"),
            ("webhook", _is_text(self.webhook), "a URL"),
        ):
            if not is_right:
                raise UsageError(f"{what} must be {wanted}, not {str(getattr(self, what))[:80]!a}")

    @property
    def lane(self) -> str:
        """The queue of this job's tickets."""
        return lanes.bulk(self.model, self.digest)


def is_digest(value: Any) -> bool:
    """Whether this names a model file in full."""
    return isinstance(value, str) and bool(_DIGEST.fullmatch(value))


def _is_whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_time(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 < value <= LONGEST_S


def _is_text(value: Any) -> bool:
    """Whether this can be written as UTF-8."""
    return isinstance(value, str) and not re.search(r"[\ud800-\udfff]", value)


def _are_texts(value: Any) -> bool:
    return isinstance(value, Mapping) and all(_is_text(k) and _is_text(v) for k, v in value.items())


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
    cache: bool = False
    cache_hits: int = 0
    webhook: str = ""
    webhook_state: str = ""
    webhook_attempts: int = 0
    #: True when its producer has said that no more images come; a job can also be closed by cancel or expiry.
    complete: bool = False

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
            cache=number("cache") == 1,
            cache_hits=number("cache_hits"),
            webhook=text.get("webhook", ""),
            webhook_state=text.get("webhook_state", ""),
            webhook_attempts=number("webhook_attempts"),
            complete=number("complete") == 1,
        )


class Queued(NamedTuple):
    """What of a job waits to be claimed."""

    items: int
    chunks: int


class Done(TypedDict):
    """What was made of a chunk: ``results`` are one line for each item that is done.

    Items at the positions of ``postponed`` have none: they wait again, unharmed, as a chunk of their own; at least one
    item must be done.
    """

    succeeded: int
    failed: int
    results: bytes
    digest: str
    cache_hits: NotRequired[int]
    postponed: NotRequired[Sequence[int]]


@dataclass(frozen=True)
class Next:
    """A claim that is part of a finish: of which lane, for how long, and the broker's queues that must be empty.

    ``is_over``: only what the same call, whose answer was lost, has claimed before.
    """

    lane: str
    lease_s: float
    unless: tuple[str, ...] = ()
    is_over: bool = False


@dataclass(frozen=True)
class Claim:
    """A chunk under a lease.

    ``crashes`` is how often a worker died with it before; ``alone``: it came out of quarantine, and the next one of
    its lane waits until this one is done. ``more``: chunks that wait behind it, counted up to a few dozen where the
    claim was a ticket's first.
    """

    job: str
    chunk_id: str
    token: str
    payload: bytes
    top_k: int
    crashes: int = 0
    cache: bool = False
    alone: bool = False
    more: int = 0

    @classmethod
    def from_answer(cls, token: str, answer: Sequence[Any] | None) -> Claim | None:
        """What the ledger's scripts tell of a chunk; None where they tell of none."""
        if answer is None:
            return None
        job, chunk, payload, top_k, crashes, cached, alone, *more = answer
        flags = cached == b"1", alone == b"1"
        return cls(job.decode(), chunk.decode(), token, payload, int(top_k), int(crashes), *flags, *map(int, more))

    @property
    def chunk(self) -> Chunk:
        """The items."""
        return decode_chunk(self.payload)

    @property
    def refs(self) -> list[str]:
        """The references of the items."""
        return self._decoded[0]

    @property
    def sent_ms(self) -> int:
        """As that of the :class:`~jobs.items.Chunk`."""
        return self._decoded[1]

    @cached_property
    def _decoded(self) -> tuple[list[str], int]:
        return decode_refs(self.payload)


@dataclass(frozen=True)
class Entry:
    """One closed chunk in a job's result stream. ``status`` is set where no worker saw it: cancelled, expired."""

    id: str
    chunk_id: str
    payload: bytes
    results: bytes = b""
    digest: str = ""
    status: str = ""


class Page(NamedTuple):
    """Closed chunks of a job, and how it stands after them; ``is_known`` is False where there is no such job.

    ``retried``: some of its results were retried. ``open_items`` were sent and are not done.
    """

    entries: list[Entry]
    is_known: bool
    ended: bool
    retried: bool
    open_items: int


@dataclass(frozen=True)
class DeadLetter:
    """An item that was given up because its worker died with it each time: what it was, why, and since when.

    ``entry`` is its result's stream entry, and its id in the job. ``deliveries`` counts how often it was tried.
    """

    job: str
    entry: str
    item: Item
    code: str
    message: str
    deliveries: int
    at_ms: int

    @classmethod
    def from_json(cls, job: str, entry: str, raw: bytes) -> DeadLetter:
        """Read what the ledger's scripts wrote."""
        kept = orjson.loads(raw)
        (item,) = decode_chunk(f"{kept['header']}\n{kept['item']}".encode()).items
        return cls(job, entry, item, kept["code"], kept["message"], int(kept["deliveries"]), int(kept["at_ms"]))


def positions(superseded: Mapping[bytes, bytes]) -> dict[str, frozenset[int]]:
    """Positions that were retried, by stream entry, from the ledger's hash of them."""
    return {k.decode(): frozenset(int(p) for p in v.split(b",")) for k, v in superseded.items()}
