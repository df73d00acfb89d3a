"""Who may ask, how much and how often; and what every answer tells a browser."""

from __future__ import annotations

import hashlib
import hmac
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlsplit

from flask import Flask, Response, request

from producer.web.problems import Problem
from producer.web.service import Service
from producer.web.settings import WebSettings

__all__ = ["LOOPBACK_HOSTS", "Slots", "install"]

#: The names that a gateway bound to loopback answers to: another name there is a page that was led here by its DNS.
LOOPBACK_HOSTS = ("localhost", "127.0.0.1", "[::1]")
#: Paths that anyone may read: the page and what it is made of, health, and the description of the interface.
_OPEN = ("/", "/openapi.json")
_OPEN_BELOW = ("/static/", "/v2/health/")
_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "
    "require-trusted-types-for 'script'",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}


class Slots:
    """So many at once and no more; who finds none is told to come again."""

    def __init__(self, count: int, what: str) -> None:
        self._free = threading.BoundedSemaphore(count)
        self._what = what

    @contextmanager
    def one(self) -> Iterator[None]:
        """A slot for the block. Raises :class:`Problem` (503) where none is free."""
        self.take()
        try:
            yield
        finally:
            self.give()

    def take(self) -> None:
        """A slot that :meth:`give` gives back."""
        if not self._free.acquire(blocking=False):
            raise Problem(503, "busy", f"too many {self._what} at once", retry_after=1)

    def give(self) -> None:
        """Give a slot back."""
        self._free.release()


class _Tokens:
    """Compares in constant time: digests of one length, all of them, each time."""

    def __init__(self, tokens: tuple[str, ...]) -> None:
        self._digests = [hashlib.sha256(token.encode()).digest() for token in tokens]

    def match(self, offered: str) -> bool:
        digest = hashlib.sha256(offered.encode("utf-8", "surrogateescape")).digest()
        found = False
        for known in self._digests:
            found |= hmac.compare_digest(known, digest)
        return found


def install(app: Flask, settings: WebSettings, service: Service) -> None:
    """Put the guards before every view, and safe headers on every answer."""
    tokens = _Tokens(settings.api_tokens)
    hosts = {host.lower() for host in settings.web_hosts}

    def guard() -> None:
        _check_host(hosts)
        _check_origin()
        if settings.api_tokens and not _open(request.path):
            _check_token(tokens)
        if settings.web_requests_per_minute and not _open(request.path):
            _check_rate(service, settings)

    def harden(answer: Response) -> Response:
        for name, value in _HEADERS.items():
            answer.headers.setdefault(name, value)
        answer.headers.setdefault("Cache-Control", "no-store")
        return answer

    app.before_request(guard)
    app.after_request(harden)


def _open(path: str) -> bool:
    return path in _OPEN or path.startswith(_OPEN_BELOW)


def _check_host(hosts: set[str]) -> None:
    name = request.host.lower()
    bare = name.rpartition(":")[0] if not name.endswith("]") and ":" in name else name
    if hosts and bare not in hosts:
        raise Problem(421, "unknown_host", "this server does not answer to that host name")


def _check_origin() -> None:
    """A page of another site must not use this server through its visitor's browser."""
    origin = request.headers.get("Origin")
    if request.method in ("GET", "HEAD", "OPTIONS") or not origin:
        return
    if urlsplit(origin).netloc.lower() != request.host.lower():
        raise Problem(403, "cross_site", "requests from pages of other sites are refused")


def _check_token(tokens: _Tokens) -> None:
    kind, _, offered = request.headers.get("Authorization", "").partition(" ")
    if kind.lower() != "bearer" or not tokens.match(offered.strip()):
        problem = Problem(401, "unauthorized", "a valid token is needed: Authorization: Bearer TOKEN")
        problem.headers["WWW-Authenticate"] = 'Bearer realm="labelmill"'
        raise problem


def _check_rate(service: Service, settings: WebSettings) -> None:
    """One counter a minute for each token or address, in Redis, so that it holds for all processes."""
    who = request.headers.get("Authorization") or request.remote_addr or ""
    minute, second = divmod(int(time.time()), 60)
    name = hashlib.sha256(who.encode("utf-8", "surrogateescape")).hexdigest()[:32]
    key = f"{settings.key_prefix}rate:{name}:{minute}"
    with service.redis.pipeline(transaction=False) as pipe:
        pipe.incr(key)
        pipe.expire(key, 120)
        count: Any = pipe.execute()[0]
    if count > settings.web_requests_per_minute:
        raise Problem(
            429,
            "too_many_requests",
            f"more than {settings.web_requests_per_minute} in a minute",
            retry_after=60 - second,
        )
