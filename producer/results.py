"""Results of a job as they come: from the ledger's stream to :class:`~jobs.items.Result`."""

from __future__ import annotations

import time
from collections.abc import Iterator
from functools import partial
from typing import cast

from jobs.errors import JobError
from jobs.items import Result, decode_chunk, decode_outcomes, label_objects
from jobs.ledger import Entry, Ledger
from jobs.patience import Patience
from jobs.records import Page, positions
from jobs.registry import ModelInfo, Registry

__all__ = ["ResultReader"]

#: Closed chunks read in one round trip.
PAGE = 16
#: Seconds that results may lie before they are read while many more are to come. Each look costs the machine that the
#: workers may be on as much as a chunk's books do.
LULL_S = 0.2
#: Of the time that a job still takes: what it may take longer for that.
LULL_SHARE = 0.25


class ResultReader:
    """Reads a job's results from a cursor on. The cursor is the id of the last stream entry that was read."""

    def __init__(self, ledger: Ledger, registry: Registry, job: str, *, patience: Patience | None = None) -> None:
        self.ledger = ledger
        self.registry = registry
        self.job = job
        self._patience = patience or Patience()
        self._models: dict[str, ModelInfo] = {}
        #: Results that were passed over because they had been retried.
        self.skipped = 0

    def pages(
        self, after: str = "0-0", *, wait_s: float = 1.0, follow: bool = True
    ) -> Iterator[tuple[str, list[Result]]]:
        """Each page with the cursor behind it, until the job has ended; without ``follow``, until nothing is there.

        While nothing new is there, an empty page comes every ``wait_s``, so that the caller can look around.
        """
        ended = self._patience(lambda: self.ledger.status(self.job)).ended
        pace = _Pace()
        while True:
            was_ended = ended  # asked before the page is read: what is read after it is complete
            wait_s_now = wait_s if follow and not ended else 0.0
            page = self._patience(partial(self.ledger.page, self.job, after=after, limit=PAGE, wait_s=wait_s_now))
            if not page.is_known:  # it was forgotten: there may have been more
                raise JobError(f"there is no job {self.job[:80]!a}")
            ended = page.ended
            if page.entries:
                after = page.entries[-1].id
                results, skipped = self._patience(partial(self._results, page))
                self.skipped += skipped
                yield after, results
                if follow and not ended:
                    pace.rest(page)
            elif (was_ended and ended) or not follow:  # it may have been retried since
                return
            else:
                yield after, []

    def _results(self, page: Page) -> tuple[list[Result], int]:
        superseded = self._superseded(page.entries) if page.retried else {}
        results = [
            result
            for entry in page.entries
            for result in self._expand(entry)
            if result.position not in superseded.get(entry.id, ())
        ]
        return results, sum(map(len, superseded.values()))

    def _superseded(self, page: list[Entry]) -> dict[str, frozenset[int]]:
        """Positions of this page that were retried: a later entry has their results."""
        ids = [entry.id for entry in page]
        found = cast("list[bytes | None]", self.ledger.redis.hmget(self.ledger.key(self.job, "superseded"), ids))
        return positions({id.encode(): raw for id, raw in zip(ids, found, strict=True) if raw})

    def _expand(self, entry: Entry) -> Iterator[Result]:
        items = decode_chunk(entry.payload).items
        if entry.status:
            for position, item in enumerate(items):
                yield Result(item.custom_id, entry.status, None, None, None, item.fields, *_place(entry, position))
            return
        info = self._model(entry.digest)
        model = {"name": info.name, "digest": entry.digest}
        for position, (item, outcome) in enumerate(zip(items, decode_outcomes(entry.results), strict=True)):
            if isinstance(outcome[0], str):
                error = {"code": outcome[0], "message": outcome[1]}
                status, labels, by = "failed", None, None
            else:
                status, labels, by, error = "succeeded", label_objects(outcome, info.labels), model, None
            yield Result(item.custom_id, status, labels, by, error, item.fields, *_place(entry, position))

    def _model(self, digest: str) -> ModelInfo:
        if digest not in self._models:
            self._models[digest] = self.registry.model(digest) or ModelInfo("unknown", digest)
        return self._models[digest]


class _Pace:
    """How often to look for results: each chunk's at once would wake us, and Redis, for every one of them."""

    def __init__(self) -> None:
        self._began = 0.0
        self._done = 0
        self._open = 0

    def rest(self, page: Page) -> None:
        """Wait a little where much is to come, and the page shows that not much has."""
        now = time.monotonic()
        if self._began:
            self._done += max(self._open - page.open_items, 0)
        else:
            self._began = now
        self._open = page.open_items
        if self._done and len(page.entries) < PAGE:
            left_s = page.open_items * (now - self._began) / self._done
            time.sleep(min(LULL_S, LULL_SHARE * left_s) if left_s > LULL_S else 0.0)


def _place(entry: Entry, position: int) -> tuple[str, int, str]:
    return entry.id, position, entry.chunk_id
