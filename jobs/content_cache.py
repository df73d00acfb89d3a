"""The content cache: result lines by what they are of, so that the same bytes are not computed twice. Opt-in by job.

A line is found again only for the same bytes under the same model file, the same preprocessing and the same k: these
are a space of the cache. Each space is bounded, and its entries expire.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import cast

from jobs.ledger import Ledger

__all__ = ["ContentCache"]


class ContentCache:
    """``ttl_s`` is how long a line is kept, ``entries`` how many of them in each space. Digests are raw sha256."""

    def __init__(self, ledger: Ledger, *, ttl_s: float, entries: int) -> None:
        self.ledger = ledger
        self.ttl_s = ttl_s
        self.entries = entries

    def get(self, space: str, digests: Sequence[bytes]) -> dict[bytes, bytes]:
        """The lines that are there, by digest. One round trip."""
        if not digests:
            return {}
        key = f"{self.ledger.prefix}cache:{space}"
        found = cast("list[bytes | None]", self.ledger.redis.hmget(key, cast("list[str]", list(digests))))
        return {digest: line for digest, line in zip(digests, found, strict=True) if line is not None}

    def put(self, space: str, lines: Mapping[bytes, bytes]) -> int:
        """Keep lines; returns how many the space has now. One round trip."""
        pairs = [part for pair in lines.items() for part in pair]
        return int(self.ledger.cache_put(space, int(self.ttl_s * 1000), self.entries, *pairs))
