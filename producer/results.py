"""Results of a job as they come: from the ledger's stream to :class:`~jobs.items.Result`."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import cast

from jobs.items import Result, decode_chunk, decode_outcomes, label_objects
from jobs.ledger import Entry, Ledger
from jobs.patience import Patience
from jobs.records import positions
from jobs.registry import ModelInfo, Registry

__all__ = ["ResultReader"]

#: Closed chunks read in one round trip.
PAGE = 16


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
        ended, _ = self._patience(self._outlook)
        while True:
            was_ended = ended  # asked before the page is read: what is read after it is complete
            wait_s_now = wait_s if follow and not ended else 0.0
            page = self._patience(partial(self.ledger.entries, self.job, after=after, limit=PAGE, wait_s=wait_s_now))
            ended, retried = self._patience(self._outlook)  # raises where it was forgotten: there may have been more
            if page:
                after = page[-1].id
                results, skipped = self._patience(partial(self._results, page, retried=retried))
                self.skipped += skipped
                yield after, results
            elif (was_ended and ended) or not follow:  # it may have been retried since
                return
            else:
                yield after, []

    def _outlook(self) -> tuple[bool, bool]:
        return self.ledger.outlook(self.job)

    def _results(self, page: list[Entry], *, retried: bool) -> tuple[list[Result], int]:
        superseded = self._superseded(page) if retried else {}
        results = [
            result
            for entry in page
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


def _place(entry: Entry, position: int) -> tuple[str, int, str]:
    return entry.id, position, entry.chunk_id
