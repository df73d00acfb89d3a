"""The client: submit images as a job, watch it, take its results.

client = Labelmill("redis://127.0.0.1:6379/0")
job = client.submit("photos/", model="efficientnet-lite0")
for result in job.results():
    print(result.custom_id, result.status)
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import cached_property
from typing import TYPE_CHECKING, cast
from urllib.parse import urlsplit

from redis.exceptions import RedisError, ResponseError

from jobs.connection import connect
from jobs.errors import BrokerUnavailableError, JobError, ModelNotServedError, UsageError
from jobs.ledger import JobRequest, JobStatus, Ledger, new_job_id
from jobs.patience import Patience
from jobs.reach import common_reach
from jobs.registry import ModelInfo, Registry, WorkerInfo
from jobs.settings import Settings, mask_url, parse_broker
from jobs.webhooks import Herald, check_webhook
from producer.cutting import check_size
from producer.events import Event, listen
from producer.ids import check_ids
from producer.job import Job
from producer.sources import By, Picture, Pictures, Source, open_source

if TYPE_CHECKING:
    from celery import Celery

    from jobs.tickets import Bell

__all__ = ["Images", "Job", "Labelmill"]

#: What can be submitted: one name or several (folders, files, archives, manifests, URLs), a source, or images.
Images = str | os.PathLike[str] | Sequence[str | os.PathLike[str]] | Source | Iterable[Picture]


class Labelmill:
    """A producer's connection, safe to share between threads.

    ``broker_url`` stands over ``settings``, and those over the environment. ``say`` hears of a Redis that is gone and
    of one that is back. Raises :class:`BrokerUnavailableError` at once when Redis is not there.
    """

    def __init__(
        self,
        broker_url: str | None = None,
        *,
        settings: Settings | None = None,
        say: Callable[[str], None] | None = None,
    ) -> None:
        settings = settings or Settings.from_env()
        try:
            self.settings = replace(settings, broker_url=parse_broker(broker_url)) if broker_url else settings
        except ValueError as exc:
            raise UsageError(mask_url(f"broker {broker_url!r}: {exc}")) from None
        client = connect(self.settings)
        self.ledger = Ledger(client, prefix=self.settings.key_prefix)
        self.registry = Registry(client, prefix=self.settings.key_prefix)
        self.patience = Patience(say=say)
        self._webhook_hosts = set(self.settings.webhook_hosts)
        try:
            client.ping()
        except RedisError as exc:
            url = mask_url(self.settings.redis_url)
            if isinstance(exc, ResponseError):  # it does, and does not do what the URL asks for
                raise BrokerUnavailableError(f"Redis at {url} refuses: {exc}") from None
            raise BrokerUnavailableError(f"Redis does not answer at {url} ({exc}): is it running?") from None

    @cached_property
    def celery(self) -> Celery:
        """For single calls: ``client.celery.send_task("labelmill.classify", ...)``.

        An application of this client's own: two clients of one process may speak to two brokers.
        """
        from celery import Celery

        app = Celery("labelmill", set_as_current=False)
        app.config_from_object("celeryconfig")
        app.conf.update(broker_url=self.settings.broker_url, result_backend=self.settings.result_backend_url)
        return app

    @cached_property
    def bell(self) -> Bell:
        """Publishes tickets."""
        from jobs.tickets import Bell

        return Bell(self.celery)

    # -- what is there ----------------------------------------------------------------------------

    def workers(self) -> list[WorkerInfo]:
        """Every worker that lives."""
        return self.patience(self.registry.workers)

    def models(self) -> list[ModelInfo]:
        """Every model that is served, once for each worker that serves it."""
        return [model for worker in self.registry.workers() if worker.is_serving for model in worker.models]

    def jobs(self) -> list[JobStatus]:
        """Every job, oldest first. Two round trips."""
        return self.patience(lambda: self.ledger.statuses(self.ledger.jobs()))

    def events(self, *, wait_s: float = 1.0) -> Iterator[Event | None]:
        """Jobs that change their state, from now on, see :func:`~producer.events.listen`."""
        return listen(self.ledger, wait_s=wait_s)

    def job(self, job_id: str) -> Job:
        """A job that was submitted before. Raises :class:`~jobs.errors.JobError` where there is none."""
        job = Job(self, job_id)
        job.status()
        return job

    def served(self, model: str, digest: str = "", *, wait_s: float = 3.0) -> list[ModelInfo]:
        """The model as each of its workers serves it. Raises :class:`ModelNotServedError` after ``wait_s``."""
        deadline = time.monotonic() + wait_s
        while True:
            found = self.registry.serving(model, digest)
            if found:
                return found
            if time.monotonic() > deadline:
                raise ModelNotServedError(self._nobody(model, digest))
            time.sleep(0.1)

    def full_digest(self, model: str, beginning: str) -> str:
        """The digest that begins so, of those that workers serve; what is no beginning of one stays as it is."""
        wanted = beginning if beginning.startswith("sha256:") or not beginning else f"sha256:{beginning}"
        found = {m.digest for m in self.registry.serving(model) if wanted and m.digest.startswith(wanted)}
        if len(found) > 1:
            raise UsageError(f"--digest {beginning} fits several: {', '.join(sorted(found))}")
        return found.pop() if found else wanted

    def _nobody(self, model: str, digest: str) -> str:
        at = mask_url(self.settings.broker_url)
        if digest and (others := {served.digest for served in self.registry.serving(model)}):
            return f"no worker at {at} serves {model!r} with {digest} (served there: {', '.join(sorted(others))})"
        names = sorted({served.name for served in self.models()})
        there = f"served there: {', '.join(names)}" if names else "no worker is there"
        return f"no worker at {at} serves {model!r} ({there}); start one: labelmill-worker serve --model {model}"

    def readable(self, model: str, digest: str = "") -> Callable[[str], bool]:
        """Says of a reference whether every worker of a model can read it itself; false while none is there."""
        serving = [
            worker.reach
            for worker in self.workers()
            if any(m.name == model and (not digest or m.digest == digest) for m in worker.models)
        ]
        return common_reach(serving)

    # -- jobs -------------------------------------------------------------------------------------

    def submit(
        self,
        images: Images,
        *,
        model: str,
        job_id: str | None = None,
        by: By = "auto",
        top_k: int = 5,
        digest: str = "",
        metadata: Mapping[str, str] | None = None,
        expires_s: float | None = None,
        retention_s: float | None = None,
        cache: bool = False,
        webhook: str = "",
        chunk_size: int | None = None,
    ) -> Job:
        """Submit all images and seal the job; returns when the last one is in the ledger.

        Images are read lazily, and sending waits while the backlog is deep. The same ``job_id`` again is the same
        job: what it has is not sent again. See :func:`~producer.sources.open_source` for ``by`` and for names.
        Whether a worker serves the model is not asked, see :meth:`served`.
        Raises :class:`~jobs.errors.SourceError`, before anything is sent, where there is nothing to read or a
        custom_id comes twice, :class:`~jobs.errors.UsageError` where an argument is none that a job can have, and
        :class:`~jobs.errors.JobError` where the job was made for something else.
        """
        check_size(chunk_size)
        source = self.source(images, model=model, digest=digest, by=by)
        if not (job_id and self.is_sealed(job_id)):
            check_ids(source)
        job = self.open(
            model,
            job_id=job_id,
            top_k=top_k,
            digest=digest,
            metadata=metadata,
            expires_s=expires_s,
            retention_s=retention_s,
            cache=cache,
            webhook=webhook,
        )
        job.sender(chunk_size=chunk_size).send(source, checked=True)
        return job

    def source(self, images: Images, *, model: str, digest: str = "", by: By = "auto") -> Source:
        """The source of what :meth:`submit` takes."""
        if isinstance(images, str | os.PathLike):
            images = [images]
        if hasattr(images, "unique"):
            return cast("Source", images)
        if isinstance(images, Sequence) and all(isinstance(name, str | os.PathLike) for name in images):
            readable = self.readable(model, digest)
            names = cast("Sequence[str | os.PathLike[str]]", images)
            return open_source(names, by=by, readable=readable, max_bytes=self.settings.max_bytes)
        return Pictures(cast("Iterable[Picture]", images))

    def open(
        self,
        model: str,
        *,
        job_id: str | None = None,
        top_k: int = 5,
        digest: str = "",
        metadata: Mapping[str, str] | None = None,
        expires_s: float | None = None,
        retention_s: float | None = None,
        cache: bool = False,
        webhook: str = "",
    ) -> Job:
        """A job that takes images through :meth:`Job.send`; the one that is there where the id is known."""
        if webhook:
            self._webhook_hosts.add(urlsplit(check_webhook(webhook)).netloc.rpartition("@")[2])
        request = JobRequest(
            model=model,
            top_k=top_k,
            digest=digest,
            metadata={} if metadata is None else metadata,
            expires_s=self.settings.expires_s if expires_s is None else expires_s,
            retention_s=self.settings.retention_s if retention_s is None else retention_s,
            cache=cache,
            webhook=webhook,
        )
        job = Job(self, job_id or new_job_id())
        if not self.patience(lambda: self.ledger.create(job.id, request)):
            _refuse_other(job.status(), request)
        return job

    def is_sealed(self, job_id: str) -> bool:
        """True for a job that is there and takes no more images."""
        return any(status.sealed for status in self.patience(lambda: self.ledger.statuses([job_id])))

    @contextmanager
    def sweeping(self) -> Iterator[None]:
        """Sweep and call webhooks for as long as this producer waits, so that it needs no other process.

        See :mod:`jobs.reconciler` and :mod:`jobs.webhooks`.
        """
        from jobs.reconciler import Reconciler

        reconciler = Reconciler(self.ledger, self.bell, sweep_s=self.settings.sweep_s)
        herald = Herald(self.ledger, self._webhook_hosts, secret=self.settings.webhook_secret)
        reconciler.start()
        herald.start()
        try:
            yield
        finally:
            reconciler.stop()
            herald.stop()


def _refuse_other(there: JobStatus, request: JobRequest) -> None:
    """The same id must mean the same job."""
    for what, has, wants in (
        ("model", there.model, request.model),
        ("digest", there.digest, request.digest),
        ("top_k", there.top_k, request.top_k),
    ):
        if has != wants:
            raise JobError(f"job {there.job} is there already, with {what} {has!r} and not {wants!r}")
