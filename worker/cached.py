"""A chunk of a job that uses the content cache: only what is not known yet goes through the engine."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import replace

from jobs.content_cache import ContentCache
from jobs.errors import ItemError
from worker.engine import UNBOUNDED, Budget, ChunkResult, Engine

__all__ = ["run_cached", "space_of"]


def space_of(engine: Engine, top_k: int) -> str:
    """The cache's space of a model file, the preprocessing that belongs to it, and k."""
    card = engine.runtime.card
    identity = repr((engine.runtime.digest, card.preprocessing, card.activation, card.input, card.output, top_k))
    return hashlib.sha256(identity.encode()).hexdigest()[:32]


def run_cached(
    engine: Engine,
    refs: Sequence[str],
    fetch: Callable[[str], bytes],
    cache: ContentCache,
    *,
    top_k: int,
    budget: Budget = UNBOUNDED,
) -> tuple[ChunkResult, int]:
    """As :meth:`Engine.run`, and how many images were not computed. Failures are not kept: they may pass."""
    fetched = _Fetched(refs, fetch)
    space = space_of(engine, top_k)
    known = cache.get(space, list(dict.fromkeys(digest for digest in fetched.digests if digest is not None)))
    first: dict[bytes | int, int] = {}
    for position, digest in enumerate(fetched.digests):
        if digest not in known:
            first.setdefault(digest if digest is not None else position, position)
    done = engine.run([refs[p] for p in first.values()], fetched.again, top_k=top_k, budget=budget)
    lines = dict(zip(first, done.lines.split(b"\n"), strict=True)) if first else {}
    new = {digest: line for digest, line in lines.items() if isinstance(digest, bytes) and not _is_failure(line)}
    if new:
        cache.put(space, new)
    all_lines = [
        known[digest] if digest in known else lines[digest if digest is not None else position]
        for position, digest in enumerate(fetched.digests)
    ]
    failed = sum(map(_is_failure, all_lines))
    result = replace(done, lines=b"\n".join(all_lines), succeeded=len(refs) - failed, failed=failed)
    return result, len(refs) - len(first)


class _Fetched:
    """The bytes of a chunk, fetched once. ``digests`` has None for an item that could not be fetched."""

    def __init__(self, refs: Sequence[str], fetch: Callable[[str], bytes]) -> None:
        self._held: dict[str, bytes | ItemError] = {}
        self.digests: list[bytes | None] = [self._digest(ref, fetch) for ref in refs]

    def again(self, ref: str) -> bytes:
        """What was fetched; raises what fetching raised."""
        held = self._held[ref]
        if isinstance(held, ItemError):
            raise held
        return held

    def _digest(self, ref: str, fetch: Callable[[str], bytes]) -> bytes | None:
        if ref not in self._held:
            try:
                self._held[ref] = fetch(ref)
            except ItemError as exc:
                self._held[ref] = exc
        held = self._held[ref]
        return hashlib.sha256(held).digest() if isinstance(held, bytes) else None


def _is_failure(line: bytes) -> bool:
    return line.startswith(b'["')
