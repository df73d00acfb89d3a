"""Webhooks: at the end of a job that named one, its URL is called, signed, until it says 2xx.

Who calls: every worker, and every producer that waits, looks each second for what is due, claims it, and calls. A claim
makes it due again later, so that a process that dies in between, or an address that does not answer, costs a wait and
nothing else; one surviving process is enough. The same call may come twice: its ``webhook-id`` is then the same.

The form is that of Standard Webhooks (standardwebhooks.com): ``webhook-id``, ``webhook-timestamp`` and
``webhook-signature: v1,<base64 of HMAC-SHA256 over "id.timestamp.body">``.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import http.client
import logging
import time
import urllib.error
import urllib.request
from collections.abc import Iterable
from typing import Any
from urllib.parse import urlsplit

import orjson

from jobs.errors import JobError, UsageError
from jobs.ledger import Ledger
from jobs.records import JobStatus
from jobs.ticking import Ticking

__all__ = ["Herald", "check_webhook", "sign"]

log = logging.getLogger(__name__)

#: Seconds that one call may take. Less than the first wait, so that nobody else calls meanwhile.
TIMEOUT_S = 10.0
#: Seconds after which a call is repeated; each time twice as many, up to the longest; and how many calls in all.
FIRST_WAIT_S, LONGEST_WAIT_S, ATTEMPTS = 15.0, 3600.0, 12
#: Seconds between two looks, and webhooks of one look.
LOOK_EVERY_S, LOOK_LIMIT = 1.0, 100
#: Longest URL.
MAX_URL_CHARS = 2048


def check_webhook(url: str) -> str:
    """The URL; raises :class:`UsageError` where it cannot be called."""
    if len(url) > MAX_URL_CHARS or not url.isprintable() or not _is_http(url):
        raise UsageError(f"a webhook must be an http:// or https:// URL, not {url[:80]!a}")
    return url


def _is_http(url: str) -> bool:
    try:
        parts = urlsplit(url)
        return parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:  # half an IPv6 address, a port that is none
        return False


def sign(secret: str, delivery: str, timestamp: int, body: bytes) -> str:
    """The value of ``webhook-signature``. A secret ``whsec_...`` is base64, any other is taken as it is."""
    key = secret.encode()
    if secret.startswith("whsec_"):
        try:
            key = base64.b64decode(secret.removeprefix("whsec_"), validate=True)
        except binascii.Error:
            raise UsageError("LABELMILL_WEBHOOK_SECRET: what follows whsec_ must be base64") from None
    digest = hmac.new(key, f"{delivery}.{timestamp}.".encode() + body, hashlib.sha256).digest()
    return f"v1,{base64.b64encode(digest).decode()}"


class Herald(Ticking):
    """Calls webhooks in a thread of its own between :meth:`start` and :meth:`stop`.

    ``hosts`` are those that it may call, as ``host`` or ``host:port``: a worker stands where its operator's other
    machines are, and must not be sent to them by whoever submits a job. Raises :class:`UsageError` for a secret that
    nothing can be signed with.
    """

    def __init__(
        self, ledger: Ledger, hosts: Iterable[str], *, secret: str = "", first_wait_s: float = FIRST_WAIT_S
    ) -> None:
        self.ledger = ledger
        self.hosts = frozenset(hosts)
        self.secret = secret
        sign(secret, "", 0, b"")
        self.first_wait_s = first_wait_s
        super().__init__(self.look, LOOK_EVERY_S, name="herald")

    def stop(self) -> None:
        """End, and look once more: the job that ended just now may be the one we waited for."""
        super().stop()
        self._guarded()

    def look(self) -> int:
        """Call what is due and allowed; returns how many said 2xx."""
        pairs = [part.decode() for part in self.ledger.webhook("due", LOOK_LIMIT)]
        due = zip(pairs[0::2], pairs[1::2], strict=True)
        return sum(self._deliver(job) for job, url in due if self._may_call(url))

    def _may_call(self, url: str) -> bool:
        parts = urlsplit(url)
        return bool({parts.hostname, parts.netloc.rpartition("@")[2]} & self.hosts)

    def _deliver(self, job: str) -> bool:
        waits = (int(self.first_wait_s * 1000), int(LONGEST_WAIT_S * 1000), ATTEMPTS)
        claimed = self.ledger.webhook("claim", job, *waits)
        if claimed is None:
            return False
        url, attempt, ended = claimed[0].decode(), int(claimed[1]), claimed[2].decode()
        try:
            status = self.ledger.status(job)
        except JobError:
            return False  # deleted in this moment
        reason = self._call(url, f"{job}.{ended}", _body(status))
        if reason:
            log.warning("webhook of job %s: attempt %d: %s", job, attempt, reason)
            return False
        self.ledger.webhook("done", job, ended)
        return True

    def _call(self, url: str, delivery: str, body: bytes) -> str:
        """Empty where the answer was 2xx, else why not."""
        timestamp = int(time.time())
        headers = {
            "content-type": "application/json",
            "user-agent": "labelmill",
            "webhook-id": delivery,
            "webhook-timestamp": str(timestamp),
        }
        if self.secret:
            headers["webhook-signature"] = sign(self.secret, delivery, timestamp, body)
        request = urllib.request.Request(url, body, headers, method="POST")
        try:
            with _OPENER.open(request, timeout=TIMEOUT_S):
                return ""
        except urllib.error.HTTPError as exc:
            return f"it answered {exc.code}"
        except (OSError, http.client.HTTPException, ValueError) as exc:
            return f"{type(exc).__name__}: {exc}"


def _body(status: JobStatus) -> bytes:
    data = {
        "id": status.job,
        "state": status.state,
        "model": status.model,
        "request_counts": status.request_counts,
        "metadata": status.metadata,
        "created_ms": status.created_ms,
        "ended_ms": status.ended_ms,
    }
    return orjson.dumps({"type": "job.ended", "data": data})


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    """An address that was allowed must not send us to one that was not."""

    def redirect_request(self, *args: Any, **kwargs: Any) -> None:
        return None


_OPENER = urllib.request.build_opener(_NoRedirects, urllib.request.ProxyHandler({}))
