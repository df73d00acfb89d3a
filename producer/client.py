"""The client: submit images as a job, watch it, take its results.

client = Labelmill("redis://127.0.0.1:6379/0", ...)
job = client.submit(Files(["photos/"]), model="efficientnet-lite0")
for result in job.results():
    print(result.custom_id, result.status)
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from itertools import islice
from typing import Any

from celery import Celery
from redis.exceptions import RedisError

from jobs.errors import BrokerUnavailableError, ModelNotServedError
from jobs.items import Item, Result, encode_chunk
from jobs.ledger import JobRequest, JobStatus, Ledger, connect, new_job_id
from jobs.patience import Patience
from jobs.reconciler import Reconciler
from jobs.registry import ModelInfo, Registry
from jobs.settings import Settings, mask_url
from jobs.tickets import Bell
from producer.ids import missing, sent_ids
from producer.results import ResultReader
from producer.sources import Source

__all__ = ["Job", "Labelmill"]

#: Work of one chunk, in seconds: an interactive request waits for one chunk at most.
CHUNK_S = 0.1
#: Items of a chunk at the least and the most, and where no worker has said how fast it is.
SMALLEST_CHUNK, LARGEST_CHUNK, UNKNOWN_CHUNK = 4, 512, 32
#: Seconds between two looks at a backlog that is too long.
BACKLOG_POLL_S = 0.2
#: Chunks between two looks at the memory of Redis.
MEMORY_EVERY = 64


class Labelmill:
    """A producer's connection. Raises :class:`BrokerUnavailableError` at once when Redis is not there."""

    def __init__(
        self,
        broker_url: str | None = None,
        *,
        settings: Settings | None = None,
        say: Callable[[str], None] | None = None,
    ) -> None:
        settings = settings or Settings.from_env()
        self.settings = replace(settings, broker_url=broker_url) if broker_url else settings
        client = connect(self.settings)
        self.ledger = Ledger(client, prefix=self.settings.key_prefix)
        self.registry = Registry(client, prefix=self.settings.key_prefix)
        self.patience = Patience(say=say)
        #: For single calls: ``client.celery.send_task("labelmill.classify", ...)``.
        self.celery = _celery(self.settings)
        self.bell = Bell(self.celery)
        try:
            client.ping()
        except RedisError as exc:
            url = mask_url(self.settings.redis_url)
            raise BrokerUnavailableError(f"Redis does not answer at {url} ({exc}): is it running?") from None

    def models(self) -> list[ModelInfo]:
        """Every model that is served, once for each worker that serves it."""
        ready = [worker for worker in self.registry.workers() if worker.state == "READY"]
        return [model for worker in ready for model in worker.models]

    def served(self, model: str, digest: str = "", *, wait_s: float = 3.0) -> list[ModelInfo]:
        """The model as each of its workers serves it. Raises :class:`ModelNotServedError` after ``wait_s``."""
        deadline = time.monotonic() + wait_s
        while True:
            found = self.registry.serving(model, digest)
            if found:
                return found
            if time.monotonic() > deadline:
                raise ModelNotServedError(self._nobody(model))
            time.sleep(0.1)

    def _nobody(self, model: str) -> str:
        others = sorted({served.name for served in self.models()})
        at = mask_url(self.settings.broker_url)
        there = f"served there: {', '.join(others)}" if others else "no worker is there"
        return f"no worker at {at} serves {model!r} ({there}); start one: labelmill-worker serve --model {model}"

    def submit(
        self,
        source: Source,
        *,
        model: str,
        job_id: str | None = None,
        top_k: int = 5,
        digest: str = "",
        metadata: Mapping[str, str] | None = None,
        expires_s: float | None = None,
        chunk_size: int | None = None,
    ) -> Job:
        """Submit all items of a source and seal the job. Items are read lazily; waits while the backlog is deep."""
        job = self.open(model, job_id=job_id, top_k=top_k, digest=digest, metadata=metadata, expires_s=expires_s)
        job.send(source, chunk_size=chunk_size)
        return job

    def open(
        self,
        model: str,
        *,
        job_id: str | None = None,
        top_k: int = 5,
        digest: str = "",
        metadata: Mapping[str, str] | None = None,
        expires_s: float | None = None,
    ) -> Job:
        """A job that takes items through :meth:`Job.send`."""
        request = JobRequest(
            model=model,
            top_k=top_k,
            digest=digest,
            metadata=dict(metadata or {}),
            expires_s=expires_s or self.settings.expires_s,
            retention_s=self.settings.retention_s,
        )
        job = Job(self, job_id or new_job_id())
        self.patience(lambda: self.ledger.create(job.id, request))
        return job

    def job(self, job_id: str) -> Job:
        """A job that was submitted before. Raises :class:`~jobs.errors.JobError` where there is none."""
        job = Job(self, job_id)
        job.status()
        return job

    @contextmanager
    def sweeping(self) -> Iterator[None]:
        """Sweep for as long as this producer waits, so that it needs no other process; see :mod:`jobs.reconciler`."""
        reconciler = Reconciler(self.ledger, self.bell, sweep_s=self.settings.sweep_s)
        reconciler.start()
        try:
            yield
        finally:
            reconciler.stop()


class Job:
    """One job, by its id."""

    def __init__(self, client: Labelmill, job_id: str) -> None:
        self.client = client
        self.id = job_id

    def status(self) -> JobStatus:
        """State and counts, in constant time."""
        return self.client.patience(lambda: self.client.ledger.status(self.id))

    def send(self, source: Source, *, chunk_size: int | None = None) -> int:
        """Send a source's items and seal the job; returns how many were sent.

        What the job accepted before, in a call that was cut off, is not sent again; a producer that still sends to
        this job gets a :class:`~jobs.errors.JobError` at its next chunk.
        """
        client, writer = self.client, secrets.token_hex(8)
        client.patience(lambda: client.ledger.take_over(self.id, writer))
        status = self.status()
        if status.sealed:
            return 0
        size = chunk_size or self._chunk_size(status)
        items = iter(source) if not status.chunks else missing(source, sent_ids(client.ledger, self.id))
        number, sent = status.chunks, 0
        while chunk := list(islice(items, size)):
            self._write(number, chunk, source.base, status.lane, writer)
            number += 1
            sent += len(chunk)
        client.patience(lambda: client.ledger.seal(self.id, writer=writer))
        return sent

    def results(self, *, after: str = "0-0") -> Iterator[Result]:
        """Every result as it comes, until the job has ended."""
        for _, page in self.pages(after=after):
            yield from page

    def pages(self, *, after: str = "0-0", wait_s: float = 1.0) -> Iterator[tuple[str, list[Result]]]:
        """Results in pages with their cursors, see :meth:`~producer.results.ResultReader.pages`."""
        reader = ResultReader(self.client.ledger, self.client.registry, self.id, patience=self.client.patience)
        return reader.pages(after, wait_s=wait_s)

    def wait(self) -> JobStatus:
        """Until the job has ended; keeps the books in order meanwhile."""
        with self.client.sweeping():
            for _ in self.pages():
                pass
        return self.status()

    def cancel(self) -> None:
        """Close all that is queued; what a worker holds goes on."""
        self.client.patience(lambda: self.client.ledger.cancel(self.id))

    def _chunk_size(self, status: JobStatus) -> int:
        rates = [m.images_per_s for m in self.client.registry.serving(status.model, status.digest) if m.images_per_s]
        if not rates:
            return UNKNOWN_CHUNK
        return max(SMALLEST_CHUNK, min(LARGEST_CHUNK, round(CHUNK_S * sum(rates) / len(rates))))

    def _write(self, number: int, items: list[Item], base: str, lane: str, writer: str) -> None:
        client = self.client
        payload = encode_chunk((item.checked() for item in items), base=base, sent_ms=int(time.time() * 1000))
        queued = client.patience(lambda: client.ledger.submit(self.id, number, payload, writer=writer))
        client.patience(lambda: client.bell.ring(lane))
        if self._too_much(number, queued):
            with client.sweeping():
                while self._too_much(number, self.status().request_counts["queued"]):
                    time.sleep(BACKLOG_POLL_S)

    def _too_much(self, number: int, queued: int) -> bool:
        return queued > self.client.settings.backlog_limit or (number % MEMORY_EVERY == 0 and self._memory_is_full())

    def _memory_is_full(self) -> bool:
        info: Any = self.client.patience(lambda: self.client.ledger.redis.info("memory"))
        return int(info["used_memory"]) > self.client.settings.redis_memory_mark


def _celery(settings: Settings) -> Celery:
    """An application of this client's own: two clients of one process may speak to two brokers."""
    app = Celery("labelmill", set_as_current=False)
    app.config_from_object("celeryconfig")
    app.conf.update(broker_url=settings.broker_url, result_backend=settings.result_backend_url)
    return app
