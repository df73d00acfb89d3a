"""One job: its state, its results, and what can be done with it."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import AbstractContextManager
from functools import partial
from typing import TYPE_CHECKING

from jobs.audit import Audit
from jobs.errors import JobError, check_code
from jobs.items import Result, decode_outcomes
from jobs.ledger import DeadLetter, Entry, JobStatus
from producer.ids import IdSet
from producer.results import ResultReader
from producer.sending import Sender
from producer.sources import Source

if TYPE_CHECKING:
    from producer.client import Labelmill

__all__ = ["Job"]

#: Seconds between two looks at a job that is waited for.
WATCH_S = 0.5


class Job:
    """One job, by its id. Every method waits for a Redis that is gone."""

    def __init__(self, client: Labelmill, job_id: str) -> None:
        self.client = client
        self.id = job_id

    def status(self) -> JobStatus:
        """State and counts, in constant time. Raises :class:`~jobs.errors.JobError` where there is no such job."""
        return self.client.patience(lambda: self.client.ledger.status(self.id))

    def send(self, source: Source, *, chunk_size: int | None = None) -> int:
        """Send a source's images and seal the job; returns how many were sent.

        What the job accepted before, in a call that was cut off, is not sent again, and while another producer sends
        to this job, this one waits. Raises :class:`~jobs.errors.SourceError` where a custom_id comes twice.
        """
        return self.sender(chunk_size=chunk_size).send(source)

    def sender(self, *, chunk_size: int | None = None) -> Sender:
        """What :meth:`send` uses, for those who want to watch it or stop it."""
        return Sender(self.client, self.id, chunk_size=chunk_size)

    def results(self, *, after: str = "0-0") -> Iterator[Result]:
        """Every result as it comes, until the job has ended."""
        return self.reader().results(after)

    def pages(
        self, *, after: str = "0-0", wait_s: float = 1.0, follow: bool = True
    ) -> Iterator[tuple[str, list[Result]]]:
        """Results in pages with their cursors, see :meth:`~producer.results.ResultReader.pages`."""
        return self.reader().pages(after, wait_s=wait_s, follow=follow)

    def reader(self) -> ResultReader:
        """What :meth:`pages` uses."""
        return ResultReader(self.client.ledger, self.client.registry, self.id, patience=self.client.patience)

    def watch(self, *, every_s: float = WATCH_S) -> Iterator[JobStatus]:
        """The state, again and again until the job has ended; each look takes constant time."""
        while True:
            status = self.status()
            yield status
            if status.ended:
                return
            time.sleep(every_s)

    def wait(self, *, timeout_s: float | None = None) -> JobStatus:
        """Until the job has ended; keeps the books in order meanwhile. Raises :class:`TimeoutError`."""
        deadline = None if timeout_s is None else time.monotonic() + timeout_s
        with self.sweeping():
            for status in self.watch():
                if not status.ended and deadline is not None and time.monotonic() > deadline:
                    raise TimeoutError(f"job {self.id} has not ended after {timeout_s:g} s")
        return status

    def sweeping(self) -> AbstractContextManager[None]:
        """See :meth:`~producer.client.Labelmill.sweeping`."""
        return self.client.sweeping()

    def cancel(self) -> JobStatus:
        """Close all that is queued; what a worker holds goes on. Returns the state after it."""
        self.client.patience(lambda: self.client.ledger.cancel(self.id))
        return self.status()

    def retry(self, *, code: str | None = None) -> int:
        """Run the failed images again, all or those with this error code; returns how many.

        Their results replace the failed ones. Raises :class:`~jobs.errors.JobError` while the job is cancelled, and
        :class:`~jobs.errors.UsageError` where none failed with that code, and there is no such code.
        """
        status = self.status()
        superseded = self.client.patience(lambda: self.client.ledger.superseded(self.id))
        queued = 0
        for entry in self._entries():
            failed = [p for p in _failed(entry, code) if p not in superseded.get(entry.id, ())]
            if failed:
                queued += self._retry(entry.id, failed, status.lane)
        if code is not None and not queued:
            check_code(code)
        return queued

    def audit(self) -> Audit:
        """Go through the books, see :func:`jobs.audit.audit`; custom_ids are compared on disk."""

        def run() -> Audit:
            with IdSet() as seen:
                return self.client.ledger.audit(self.id, first_seen=seen.add)

        return self.client.patience(run)

    def delete(self, *, force: bool = False) -> None:
        """Forget the job with all it holds. Raises :class:`~jobs.errors.JobError` while it runs, but for ``force``."""
        if not self.status().ended and not force:
            raise JobError(f"job {self.id} has not ended: cancel it first, or use force")
        self.client.patience(lambda: self.client.ledger.delete(self.id))

    def dead_letters(self) -> list[DeadLetter]:
        """Images that were given up because their worker died with them each time, oldest first."""
        found = self.client.patience(lambda: list(self.client.ledger.dead_letters(self.id)))
        return sorted(found, key=lambda letter: (letter.at_ms, letter.entry))

    def replay(self, entry: str) -> bool:
        """Try a dead letter again; False where another call was first."""
        self.client.ledger.dead_letter(self.id, entry)
        return self._retry(entry, [0], self.status().lane) > 0

    def drop(self, entry: str) -> bool:
        """Forget a dead letter; its result stays failed. False where there is none."""
        return self.client.patience(lambda: self.client.ledger.drop(self.id, entry))

    def _retry(self, entry: str, positions: list[int], lane: str) -> int:
        client = self.client
        expires_s = client.settings.expires_s
        queued = client.patience(lambda: client.ledger.retry(self.id, entry, positions, expires_s=expires_s))
        if queued:
            client.patience(lambda: client.bell.ring(lane))
        return queued

    def _entries(self) -> Iterator[Entry]:
        """The chunks that are closed by now: what is retried may close again while we go through them."""
        until = self.client.patience(lambda: self.client.ledger.last_entry(self.id))
        after = "0-0"
        while page := self.client.patience(partial(self.client.ledger.entries, self.id, after=after)):
            for entry in page:
                yield entry
                if entry.id == until:
                    return
            after = page[-1].id


def _failed(entry: Entry, code: str | None) -> list[int]:
    if entry.status:
        return []
    outcomes = enumerate(decode_outcomes(entry.results))
    return [position for position, (head, *_) in outcomes if isinstance(head, str) and code in (None, head)]
