"""The audit: proves that a job's books add up, and names every item that is outside of them.

What is checked of one moment of the ledger, while work goes on:

- total = succeeded + failed + cancelled + expired + queued + leased;
- each of the four ends, counted again from the result stream, is what the books say;
- every open chunk waits or is leased, none both, none neither;
- the items of leased chunks, counted again, are what the books say.

Where nothing changed meanwhile, also the items of all open chunks. And no custom_id is there twice: for that the caller
brings a set, for ten million of them do not fit into memory.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

from jobs.items import decode_chunk, decode_outcomes
from jobs.records import COUNTS, Entry, JobStatus, positions

if TYPE_CHECKING:
    from jobs.ledger import Ledger

__all__ = ["Audit", "audit"]

#: Problems that are listed at most; more of them help nobody.
MAX_PROBLEMS = 1000
_ENDS = ("succeeded", "failed", "cancelled", "expired")


@dataclass(frozen=True)
class Audit:
    """What an audit found. ``recounted`` are the four ends as the result stream has them; ``problems`` one line each.

    ``is_complete`` is False where the job changed while its open chunks were counted, so that these were compared
    by chunks only.
    """

    status: JobStatus
    recounted: dict[str, int]
    open_chunks: int
    waiting_chunks: int
    leased_chunks: int
    problems: tuple[str, ...]
    is_complete: bool

    @property
    def is_balanced(self) -> bool:
        """True where no item is outside of the books."""
        return not self.problems


@dataclass(frozen=True)
class _Moment:
    """The ledger's snapshot."""

    status: JobStatus
    open_chunks: int
    waiting_chunks: int
    leased: dict[str, int]
    last_entry: str
    superseded: dict[str, frozenset[int]]

    @classmethod
    def read(cls, ledger: Ledger, job: str) -> _Moment:
        pairs, open_chunks, waiting, leased, last, superseded = ledger.snapshot(job)
        status = JobStatus.from_hash(job, _dict(pairs))
        items = {chunk.decode(): int(count) for chunk, count in _dict(leased).items()}
        return cls(status, int(open_chunks), int(waiting), items, last.decode(), positions(_dict(superseded)))


def audit(ledger: Ledger, job: str, *, first_seen: Callable[[str], bool] | None = None) -> Audit:
    """Go through a job's books; several round trips. Memory: the ids of the open chunks, nothing for each item.

    ``first_seen(custom_id)`` says whether an id is new; without it, ids are not compared.
    Raises :class:`~jobs.errors.JobError` where there is no such job.
    """
    first_seen = first_seen or (lambda custom_id: True)
    moment = _Moment.read(ledger, job)
    recounted: Counter[str] = Counter()
    problems: list[str] = []
    for entry in _entries(ledger, job, moment.last_entry):
        for custom_id, end in _ends(entry, moment.superseded.get(entry.id, frozenset())):
            recounted[end] += 1
            if not first_seen(custom_id):
                problems.append(_repeat(custom_id))
    open_items, repeats = _open_items(ledger, job, first_seen)
    is_complete = _Moment.read(ledger, job) == moment
    if is_complete:
        problems += repeats
    problems += _differences(moment, recounted, open_items if is_complete else None)
    if moment.open_chunks != moment.waiting_chunks + len(moment.leased):
        problems += _stranded(ledger, job, moment)
    ends = {name: recounted[name] for name in _ENDS}
    chunks = (moment.open_chunks, moment.waiting_chunks, len(moment.leased))
    return Audit(moment.status, ends, *chunks, tuple(problems[:MAX_PROBLEMS]), is_complete)


def _entries(ledger: Ledger, job: str, last: str) -> Iterator[Entry]:
    after = "0-0"
    while page := ledger.entries(job, after=after):
        after = page[-1].id
        for entry in page:
            if _order(entry.id) > _order(last):
                return
            yield entry


def _dict(pairs: list[Any]) -> dict[Any, Any]:
    return dict(zip(pairs[0::2], pairs[1::2], strict=True))


def _order(entry: str) -> tuple[int, ...]:
    return tuple(int(part) for part in entry.split("-"))


def _ends(entry: Entry, superseded: frozenset[int]) -> Iterator[tuple[str, str]]:
    """Custom_id and end of each item of a closed chunk that was not retried."""
    items = decode_chunk(entry.payload).items
    outcomes: list[Any] = list(decode_outcomes(entry.results)) if not entry.status else [None] * len(items)
    for position, (item, outcome) in enumerate(zip(items, outcomes, strict=True)):
        if position not in superseded:
            end = entry.status or ("failed" if isinstance(outcome[0], str) else "succeeded")
            yield item.custom_id, end


def _open_items(ledger: Ledger, job: str, first_seen: Callable[[str], bool]) -> tuple[int, list[str]]:
    """How many items the open chunks have, and the repeats among them."""
    count, repeats = 0, []
    chunks: set[bytes] = set()  # a scan may give one twice
    for chunk, payload in ledger.redis.hscan_iter(ledger.key(job, "payload"), count=100):
        if chunk not in chunks:
            chunks.add(chunk)
            items = decode_chunk(payload).items
            count += len(items)
            repeats += [_repeat(item.custom_id) for item in items if not first_seen(item.custom_id)]
    return count, repeats


def _repeat(custom_id: str) -> str:
    return f"item {custom_id!a} is there more than once"


def _differences(moment: _Moment, recounted: Counter[str], open_items: int | None) -> list[str]:
    counts = moment.status.request_counts
    found = []
    added = sum(counts[name] for name in COUNTS if name != "total")
    if added != counts["total"]:
        found.append(f"total is {counts['total']}, but all the others add up to {added}")
    pairs = {name: recounted[name] for name in _ENDS} | {"leased": sum(moment.leased.values())}
    if open_items is not None:
        pairs["queued"] = open_items - pairs["leased"]
    for name, counted in pairs.items():
        if counted != counts[name]:
            found.append(f"{name} is {counts[name]} in the books, but {counted} when counted")
    return found


def _stranded(ledger: Ledger, job: str, moment: _Moment) -> Iterator[str]:
    """Items of chunks that neither wait nor are leased."""
    known = set(moment.leased)
    for part in ("queued", "quarantine"):
        known.update(chunk.decode() for chunk in cast("list[bytes]", ledger.redis.lrange(ledger.key(job, part), 0, -1)))
    yield f"{moment.open_chunks} chunks are open, {moment.waiting_chunks} wait, {len(moment.leased)} are leased"
    for chunk, payload in ledger.redis.hscan_iter(ledger.key(job, "payload"), count=100):
        if chunk.decode() not in known:
            for item in decode_chunk(payload).items:
                yield f"item {item.custom_id!a} is in chunk {chunk.decode()}, which neither waits nor is leased"
