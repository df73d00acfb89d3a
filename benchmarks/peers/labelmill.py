"""Ours, as one bulk job: a folder, from submit to the last result."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from benchmarks.peers.driver import Classify, Setup
from benchmarks.peers.work import Answer
from benchmarks.stack import labelmill
from jobs.items import SCORE_UNITS, Result

__all__ = ["serve"]


@contextmanager
def serve(setup: Setup) -> Iterator[Classify]:
    """One worker, with a process to each core."""
    with labelmill(setup.model) as client:

        def classify(paths: Sequence[str], deadline: float) -> list[Answer]:
            folder = os.path.dirname(paths[0])
            job = client.submit(folder, model=setup.model, by="reference")
            found: dict[str, Answer] = {}
            for _, page in job.pages():
                found |= {result.custom_id: _answer(result) for result in page}
                if time.monotonic() > deadline:
                    break
            client.ledger.delete(job.id)
            return [found.get(os.path.basename(path)) for path in paths]

        yield classify


def _answer(result: Result) -> Answer:
    if result.labels is None:
        return f"{result.error['code']}: {result.error['message']}" if result.error else result.status
    return [number for one in result.labels for number in (one["index"], round(one["score"] * SCORE_UNITS))]
