"""Results of a job as they come: from the ledger's stream to :class:`~jobs.items.Result`."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from functools import partial
from typing import cast

from jobs.errors import JobError
from jobs.items import Result, decode_names, decode_outcomes, label_objects
from jobs.ledger import Entry, Ledger
from jobs.patience import Patience
from jobs.records import Page, positions
from jobs.registry import ModelInfo, Registry

__all__ = ["Pace", "ResultReader"]

#: Closed chunks read in one round trip.
PAGE = 16
#: Results at the least that are handed out together where more are there. Thousands that are kept at once send Python's
#: garbage collector through all objects of the program.
BLOCK = 256
#: Seconds that a look waits for the first result.
WAIT_S = 1.0
#: Seconds that results may lie before they are read while many more are to come. Each look costs the machine that the
#: workers may be on as much as a chunk's books do.
LULL_S = 0.2
#: Of the time that a job still takes: what it may take longer for that.
LULL_SHARE = 0.25

_Positions = Mapping[str, frozenset[int]]


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

    def results(self, after: str = "0-0") -> Iterator[Result]:
        """Every result as it comes, until the job has ended."""
        for entries, superseded in self._looks(after, wait_s=WAIT_S, follow=True):
            for entry in entries:
                yield from self._valid(entry, superseded)

    def pages(
        self, after: str = "0-0", *, wait_s: float = WAIT_S, follow: bool = True
    ) -> Iterator[tuple[str, list[Result]]]:
        """Some results with the cursor behind them, until the job has ended; without ``follow``, until none are there.

        While nothing new is there, an empty page comes every ``wait_s``, so that the caller can look around.
        """
        for entries, superseded in self._looks(after, wait_s=wait_s, follow=follow):
            results: list[Result] = []
            if not entries:
                yield after, results
            for entry in entries:
                results += self._valid(entry, superseded)
                if len(results) >= BLOCK or entry is entries[-1]:
                    after = entry.id
                    yield after, results
                    results = []

    def _looks(self, after: str, *, wait_s: float, follow: bool) -> Iterator[tuple[list[Entry], _Positions]]:
        """The entries of each look, and which of their results were retried."""
        ended = self._patience(lambda: self.ledger.status(self.job)).ended
        pace = Pace()
        while True:
            was_ended = ended  # asked before the page is read: what is read after it is complete
            wait_s_now = wait_s if follow and not ended else 0.0
            page = self._patience(partial(self.ledger.page, self.job, after=after, limit=PAGE, wait_s=wait_s_now))
            if not page.is_known:  # it was forgotten: there may have been more
                raise JobError(f"there is no job {self.job[:80]!a}")
            ended = page.ended
            if page.entries:
                after = page.entries[-1].id
                superseded = self._patience(partial(self._superseded, page.entries)) if page.retried else {}
                yield page.entries, superseded
                if follow and not ended:
                    time.sleep(pace.rest_s(page, time.monotonic()))
            elif (was_ended and ended) or not follow:  # it may have been retried since
                return
            else:
                yield [], {}

    def _valid(self, entry: Entry, superseded: _Positions) -> Iterator[Result]:
        """The results of an entry but for those that were retried."""
        passed_over = superseded.get(entry.id)
        if not passed_over:
            return self._expand(entry)
        self.skipped += len(passed_over)
        return (result for result in self._expand(entry) if result.position not in passed_over)

    def _superseded(self, page: list[Entry]) -> _Positions:
        """Positions of this page that were retried: a later entry has their results."""
        ids = [entry.id for entry in page]
        found = cast("list[bytes | None]", self.ledger.redis.hmget(self.ledger.key(self.job, "superseded"), ids))
        return positions({id.encode(): raw for id, raw in zip(ids, found, strict=True) if raw})

    def _expand(self, entry: Entry) -> Iterator[Result]:
        names = decode_names(entry.payload)
        here, chunk = entry.id, entry.chunk_id
        if entry.status:
            for position, (custom_id, fields) in enumerate(names):
                yield Result(custom_id, entry.status, None, None, None, fields, here, position, chunk)
            return
        info = self._model(entry.digest)
        by = {"name": info.name, "digest": entry.digest}
        for position, ((custom_id, fields), outcome) in enumerate(
            zip(names, decode_outcomes(entry.results), strict=True)
        ):
            if isinstance(outcome[0], str):
                error = {"code": outcome[0], "message": outcome[1]}
                yield Result(custom_id, "failed", None, None, error, fields, here, position, chunk)
            else:
                labels = label_objects(outcome, info.labels)
                yield Result(custom_id, "succeeded", labels, by, None, fields, here, position, chunk)

    def _model(self, digest: str) -> ModelInfo:
        if digest not in self._models:
            found = self._patience(lambda: self.registry.model(digest))
            self._models[digest] = found or ModelInfo("unknown", digest)
        return self._models[digest]


class Pace:
    """How often to look for results: each chunk's at once would wake us, and Redis, for every one of them."""

    def __init__(self) -> None:
        self._began: float | None = None
        self._done = 0
        self._open = 0

    def rest_s(self, page: Page, now: float) -> float:
        """Seconds to rest where much is to come, and the page shows that not much has. ``now`` in seconds."""
        self._began = now if self._began is None else self._began
        self._done += max(self._open - page.open_items, 0)
        self._open = page.open_items
        if not self._done or len(page.entries) == PAGE:
            return 0.0
        left_s = page.open_items * (now - self._began) / self._done
        return min(LULL_S, LULL_SHARE * left_s) if left_s > LULL_S else 0.0
