"""Short hands for tests of the ledger: jobs of numbered items, workers that finish, time that passes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

from jobs.items import Item, decode_chunk, encode_chunk
from jobs.ledger import COUNTS, Claim, JobRequest, JobStatus, Ledger

__all__ = ["LANE", "LEASE_S", "MODEL", "Books", "Seen", "chunk_of"]

MODEL = "noop"
LANE = "noop.bulk"
#: Seconds of a lease; longer than any test, which lets time pass by :meth:`Books.pass_time`.
LEASE_S = 1000.0


def chunk_of(names: Sequence[str], *, base: str = "/images") -> bytes:
    """A chunk of files."""
    return encode_chunk([Item(name, f"{base}/{name}") for name in names], base=base)


class Books:
    """A ledger, and a lane of it."""

    def __init__(self, ledger: Ledger, *, retention_s: float = 5000.0, expires_s: float = 100_000.0) -> None:
        self.ledger = ledger
        self._request = JobRequest(MODEL, retention_s=retention_s, expires_s=expires_s)
        self._tokens = 0

    def job(self, *chunks: Sequence[str], job: str = "job", seal: bool = True) -> str:
        """A job of these chunks of custom_ids."""
        self.ledger.create(job, self._request)
        for number, names in enumerate(chunks):
            self.ledger.submit(job, number, chunk_of(names))
        if seal:
            self.ledger.seal(job)
        return job

    def claim(self, token: str = "") -> Claim | None:
        """What the next worker gets, under a token of its own where none is given."""
        self._tokens += 1
        return self.ledger.claim(LANE, token or f"token-{self._tokens}", lease_s=LEASE_S)

    def claimed(self, token: str = "") -> Claim:
        """The same, where something must be there."""
        claim = self.claim(token)
        assert claim is not None
        return claim

    def finish(self, claim: Claim, *, bad: Sequence[str] = ()) -> bool:
        """Finish a chunk; those of ``bad`` fail."""
        lines = [b'["corrupt_image","broken"]' if item.custom_id in bad else b"[0,5000]" for item in claim.chunk.items]
        failed = sum(item.custom_id in bad for item in claim.chunk.items)
        good = len(lines) - failed
        return self.ledger.finish(claim, succeeded=good, failed=failed, results=b"\n".join(lines), digest="sha256:0")

    def finish_all(self) -> list[Claim]:
        """Claim and finish until nothing is left."""
        done = []
        while claim := self.claim():
            assert self.finish(claim)
            done.append(claim)
        return done

    def pass_time(self, seconds: float) -> None:
        """Let time pass for all that the scripts compare with the clock: leases, deadlines and retention."""
        redis, prefix = self.ledger.redis, self.ledger.prefix
        for name in ("leases", "deadlines", "ended"):
            for member in cast("list[bytes]", redis.zrange(prefix + name, 0, -1)):
                redis.zincrby(prefix + name, -seconds * 1000, member)
        for key in cast("list[bytes]", redis.keys(f"{prefix}job:*")):
            left = cast("int", redis.pttl(key))
            if left >= 0:
                redis.pexpire(key, max(1, left - int(seconds * 1000))) if left > seconds * 1000 else redis.delete(key)

    def counts(self, job: str = "job") -> dict[str, int]:
        """What is not zero of a job's counts."""
        counts = self.ledger.status(job).request_counts
        assert counts["total"] == sum(counts[name] for name in COUNTS if name != "total"), counts
        return {name: n for name, n in counts.items() if n}

    def status(self, job: str = "job") -> JobStatus:
        """A job's status."""
        return self.ledger.status(job)

    def recorded(self, job: str = "job") -> dict[str, list[str]]:
        """Every end of each custom_id that counts, in order: it should be one."""
        found: dict[str, list[str]] = {}
        superseded = self.ledger.superseded(job)
        for entry in self.ledger.entries(job, limit=100_000):
            lines = entry.results.split(b"\n")
            for position, item in enumerate(decode_chunk(entry.payload).items):
                if position not in superseded.get(entry.id, ()):
                    end = entry.status or ("failed" if lines[position].startswith(b'["') else "succeeded")
                    found.setdefault(item.custom_id, []).append(end)
        return found


class Seen:
    """Says whether an id is new."""

    def __init__(self) -> None:
        self._ids: set[str] = set()

    def __call__(self, custom_id: str) -> bool:
        is_new = custom_id not in self._ids
        self._ids.add(custom_id)
        return is_new
