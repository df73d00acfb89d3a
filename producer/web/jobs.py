"""Jobs over HTTP: make, list, look at, cancel, retry, delete."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

from flask import Blueprint, Response, request

from jobs.errors import JobError, SourceError
from jobs.ledger import new_job_id
from jobs.records import JobStatus
from producer.job import Job
from producer.sending import StoppedError
from producer.sources import Picture, Source, Upload, located
from producer.web.bodies import Bodies
from producer.web.idempotency import claim
from producer.web.orders import Order, check, from_form, from_json, from_whole
from producer.web.problems import Problem
from producer.web.queries import flag, number
from producer.web.replies import json_reply
from producer.web.service import Service
from producer.web.times import iso
from producer.web.unfinished import Unfinished

__all__ = ["blueprint", "find", "job_object"]

#: Jobs of one page of the list.
PAGE, MAX_PAGE = 50, 200
#: What an archive may hold unpacked, over the largest body: pictures do not shrink.
UNPACKED = 4


def blueprint(service: Service, bodies: Bodies) -> Blueprint:
    """``/v1/jobs`` and what belongs to one job, but for what is streamed."""
    views = Blueprint("jobs", __name__)
    maker = _Maker(service, bodies)

    @views.post("/v1/jobs")
    def create() -> Response:
        return maker.create()

    @views.get("/v1/jobs")
    def listed() -> Response:
        maker.unfinished.sweep(service.client.ledger)
        return json_reply(_page(service, request.args.get("after"), number("limit", MAX_PAGE) or PAGE))

    @views.get("/v1/jobs/<job_id>")
    def one(job_id: str) -> Response:
        return json_reply(job_object(find(service, job_id).status()))

    @views.post("/v1/jobs/<job_id>/cancel")
    def cancel(job_id: str) -> Response:
        return json_reply(job_object(find(service, job_id).cancel()))

    @views.post("/v1/jobs/<job_id>/retry")
    def retry(job_id: str) -> Response:
        job = find(service, job_id)
        retried = job.retry(code=_code(bodies))
        return json_reply({"retried": retried, "job": job_object(job.status())})

    @views.delete("/v1/jobs/<job_id>")
    def delete(job_id: str) -> Response:
        find(service, job_id).delete(force=flag("force"))
        answer = Response(status=204)
        del answer.headers["Content-Type"]
        return answer

    return views


def find(service: Service, job_id: str) -> Job:
    """A job. Raises :class:`Problem` (404) where there is none."""
    try:
        return service.client.job(job_id)
    except JobError:
        raise Problem(404, "job_not_found", "there is no such job") from None


def job_object(status: JobStatus) -> dict[str, Any]:
    """A job as it is shown."""
    return {
        "id": status.job,
        "object": "job",
        "state": status.state,
        "model": status.model,
        "digest": status.digest or None,
        "top_k": status.top_k,
        "request_counts": status.request_counts,
        "metadata": status.metadata,
        "created_at": iso(status.created_ms),
        "expires_at": iso(status.expires_ms),
        "ended_at": iso(status.ended_ms),
    }


class _Maker:
    """Makes jobs from requests."""

    def __init__(self, service: Service, bodies: Bodies) -> None:
        self.service = service
        self.bodies = bodies
        self.settings = service.settings
        self.unfinished = Unfinished()

    def create(self) -> Response:
        """The answer to ``POST /v1/jobs``: 201 when every image is in the ledger, 200 for a repeat."""
        self.unfinished.sweep(self.service.client.ledger)
        with self._order() as order:
            model = self.service.served(order.model)[0].name
            check(order.source)
            job_id, made, repeatable = self._identify(order)
            with nullcontext() if repeatable else self.unfinished.marked(self.service.client.ledger, job_id):
                job = self._send(order, model, job_id, repeatable=repeatable)
        headers = {"Location": f"/v1/jobs/{job_id}"} | ({} if made else {"Idempotency-Replayed": "true"})
        return json_reply(job_object(job.status()), 201 if made else 200, headers)

    @contextmanager
    def _order(self) -> Iterator[Order]:
        query, most = request.args.to_dict(), self.settings.max_bytes
        if request.mimetype == "application/json":
            yield from_json(self.bodies.json(), query)
            return
        with self.bodies.upload(("files",)) as spool:
            if request.mimetype == "multipart/form-data":
                yield from_form(spool, query, max_bytes=most)
            else:
                yield from_whole(spool, spool.parts[0], query, max_bytes=most)

    def _identify(self, order: Order) -> tuple[str, bool, bool]:
        """The job's id, whether it is new, and whether the request can be repeated."""
        key = request.headers.get("Idempotency-Key")
        if key is None:
            return new_job_id(), True, False
        settings = self.settings
        kept_s = (order.expires_s or settings.expires_s) + settings.retention_s
        job_id, new = claim(self.service.redis, key, order.fingerprint, prefix=settings.key_prefix, kept_s=kept_s)
        return job_id, new, True

    def _send(self, order: Order, model: str, job_id: str, *, repeatable: bool) -> Job:
        """Put every image into the ledger.

        Where that fails, the job is deleted again, unless a repeat of the request can go on with it. Raises
        :class:`Problem`, 503 where there was no room in time, and whatever reading the images raises.
        """
        job = self.service.client.open(
            model,
            job_id=job_id,
            top_k=order.top_k,
            digest=order.digest,
            metadata=order.metadata,
            expires_s=order.expires_s,
        )
        sender = job.sender()
        timer = threading.Timer(self.settings.web_submit_timeout_s, sender.stop)
        timer.daemon = True
        timer.start()
        try:
            sender.send(_Bounded(order.source, UNPACKED * self.settings.web_max_body), checked=True)
        except Exception as exc:
            if not repeatable or isinstance(exc, (SourceError, Problem)):  # these come again with every repeat
                job.delete(force=True)
            if isinstance(exc, StoppedError):
                raise Problem(503, "backlog", "there was no room for these images in time", retry_after=30) from None
            raise
        finally:
            timer.cancel()
        return job


class _Bounded:
    """A source that ends with a :class:`Problem` where its images are too large together."""

    base = ""
    unique = True  # it was looked through before

    def __init__(self, source: Source, most_bytes: int) -> None:
        self.source = source
        self.most_bytes = most_bytes

    def ids(self) -> Iterator[tuple[str, str]]:
        """Those of the source."""
        return located(self.source)

    def __iter__(self) -> Iterator[Picture]:
        total = 0
        for picture in self.source:
            if isinstance(picture, Upload):
                total += len(picture.data)
            if total > self.most_bytes:
                raise Problem(413, "too_large", "the images of this request are too large together")
            yield picture


def _page(service: Service, after: str | None, limit: int) -> dict[str, Any]:
    ledger = service.client.ledger
    newest = list(reversed(ledger.jobs()))
    if after is not None:
        if after not in newest:
            raise Problem(404, "job_not_found", "after names no job")
        newest = newest[newest.index(after) + 1 :]
    page = newest[:limit]
    return {
        "jobs": [job_object(status) for status in ledger.statuses(page)],
        "next": page[-1] if len(newest) > limit else None,
    }


def _code(bodies: Bodies) -> str | None:
    """The error code to retry; None for all."""
    body = bodies.json(default={})
    code = body.get("code") if isinstance(body, dict) and set(body) <= {"code"} else 0
    if code is not None and not isinstance(code, str):
        raise Problem(422, "bad_request", 'the body must be {"code": "..."}, or empty')
    return code
