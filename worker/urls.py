"""Images by URL: one request on a connection to the very address that was checked, and redirects, each checked anew.

A name is resolved once, all its addresses are checked, and the connection goes to one of them, so that a name
which resolves to something else a moment later gains nothing. Connections are kept and used again.
"""

from __future__ import annotations

import http.client
import socket
import ssl
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Any
from urllib.parse import urljoin

from jobs.asking import status_error
from jobs.errors import (
    FetchFailedError,
    FetchTimeoutError,
    ForbiddenError,
    InvalidItemError,
    ItemError,
    NotFoundError,
    TooLargeError,
)
from jobs.guard import DEFAULT_PORTS, Guard, Target

__all__ = ["Resolve", "Urls", "resolve"]

#: Redirects followed for one image.
MAX_REDIRECTS = 5
#: Bytes asked of a connection at a time.
PIECE_BYTES = 1 << 18
#: Idle connections kept for one host; more than the threads that fetch would lie idle.
MAX_IDLE = 32

#: From a host and a port to its addresses.
Resolve = Callable[[str, int], Sequence[str]]

_HEADERS = {"Accept": "image/*,*/*;q=0.5", "Accept-Encoding": "identity", "User-Agent": "labelmill"}
_REDIRECTS = frozenset({301, 302, 303, 307, 308})


def resolve(host: str, port: int) -> list[str]:
    """The addresses of a host, in the order in which the system would try them."""
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(entry[4][0]) for entry in found))


class Urls:
    """Fetches URLs of the hosts that ``guard`` allows. One for a process, shared by its threads."""

    def __init__(self, guard: Guard, *, max_bytes: int, resolve: Resolve = resolve) -> None:
        self.guard = guard
        self.max_bytes = max_bytes
        self._resolve = resolve
        self._lock = threading.Lock()
        self._idle: defaultdict[tuple[str, str, int], list[_Connection]] = defaultdict(list)

    @cached_property
    def _tls(self) -> ssl.SSLContext:
        """Made when it is first needed: reading the system's certificates takes its time."""
        context = ssl.create_default_context()
        context.sslsocket_class = _TlsSocket
        return context

    def read(self, url: str, *, until: float) -> bytes:
        """The body of a URL, read by ``until`` (of ``time.monotonic``); no retry.

        Raises :class:`~jobs.errors.ForbiddenError`, :class:`~jobs.errors.NotFoundError`,
        :class:`~jobs.errors.InvalidItemError`, :class:`~jobs.errors.TooLargeError`, and the transient
        :class:`~jobs.errors.FetchTimeoutError` and :class:`~jobs.errors.FetchFailedError`.
        """
        try:
            for _ in range(MAX_REDIRECTS + 1):
                body, location = self._ask(Target.of(url), until)
                if location is None:
                    return body
                url = _joined(url, location)
        except TimeoutError as exc:
            raise FetchTimeoutError() from exc
        except ssl.SSLCertVerificationError as exc:
            raise ForbiddenError("the server's certificate is not valid") from exc
        except (OSError, http.client.HTTPException) as exc:
            raise FetchFailedError(f"the server could not be asked: {_reason(exc)}") from exc
        raise InvalidItemError(f"the server redirects more than {MAX_REDIRECTS} times")

    def close(self) -> None:
        """Close the connections that are kept."""
        with self._lock:
            idle = [connection for kept in self._idle.values() for connection in kept]
            self._idle.clear()
        for connection in idle:
            connection.close()

    def _ask(self, target: Target, until: float) -> tuple[bytes, str | None]:
        """The body, or where it is to be found instead."""
        self.guard.check_host(target)
        connection = self._kept(target)
        if connection is not None:
            try:
                return self._exchange(connection, target, until)
            except (ConnectionError, ssl.SSLEOFError):
                pass  # the server closed it while it lay idle: ask again on a new one
        return self._exchange(self._connected(target, until), target, until)

    def _exchange(self, connection: _Connection, target: Target, until: float) -> tuple[bytes, str | None]:
        try:
            connection.deadline.at = until
            connection.request("GET", target.path, headers=_HEADERS)
            with connection.getresponse() as response:
                location = response.getheader("Location") if response.status in _REDIRECTS else None
                if location is None:
                    _check_status(response.status)
                body = b"" if location else self._body(response)
                is_done = response.isclosed() and not response.will_close
        except BaseException:
            connection.close()
            raise
        self._keep(target, connection) if is_done else connection.close()
        return body, location

    def _body(self, response: http.client.HTTPResponse) -> bytes:
        if (response.length or 0) > self.max_bytes:
            raise TooLargeError(f"the image has {response.length} bytes; at most {self.max_bytes} are allowed")
        parts, size = [], 0
        while piece := response.read(PIECE_BYTES):
            parts.append(piece)
            size += len(piece)
            if size > self.max_bytes:
                raise TooLargeError(f"the image has more than {self.max_bytes} bytes")
        if response.length:
            raise FetchFailedError("the connection was closed before the image had arrived")
        return b"".join(parts)

    def _connected(self, target: Target, until: float) -> _Connection:
        try:
            addresses = self._resolve(target.host, target.port)
        except socket.gaierror as exc:
            raise _unresolved(exc) from exc
        self.guard.check_addresses(target, addresses)
        error: OSError = OSError("the host has no address")
        for address in addresses:
            connection = _Connection(target, address, self._tls if target.scheme == "https" else None)
            connection.deadline.at = until
            try:
                connection.connect()
            except OSError as exc:
                error = exc
                connection.close()
            else:
                return connection
        raise error

    def _kept(self, target: Target) -> _Connection | None:
        with self._lock:
            idle = self._idle[target.scheme, target.host, target.port]
            return idle.pop() if idle else None

    def _keep(self, target: Target, connection: _Connection) -> None:
        with self._lock:
            idle = self._idle[target.scheme, target.host, target.port]
            if len(idle) < MAX_IDLE:
                idle.append(connection)
                return
        connection.close()


class _Deadline:
    """When the exchange in hand must be over, on ``time.monotonic``."""

    at = 0.0

    def left(self) -> float:
        """Seconds that are left; raises :class:`TimeoutError` where none are."""
        left = self.at - time.monotonic()
        if left <= 0:
            raise TimeoutError
        return left


class _Timed:
    """A socket whose waits end with the exchange: a server that sends a byte now and then gains nothing."""

    deadline: _Deadline | None = None

    def recv_into(self, *args: Any, **options: Any) -> int:
        self._limit()
        return int(super().recv_into(*args, **options))  # type: ignore[misc]

    def sendall(self, *args: Any, **options: Any) -> None:
        self._limit()
        super().sendall(*args, **options)  # type: ignore[misc]

    def _limit(self) -> None:
        if self.deadline is not None:
            self.settimeout(self.deadline.left())  # type: ignore[attr-defined]


class _Socket(_Timed, socket.socket):
    pass


class _TlsSocket(_Timed, ssl.SSLSocket):
    pass


class _Connection(http.client.HTTPConnection):
    """A connection to a checked address, whatever its host's name resolves to by now."""

    def __init__(self, target: Target, address: str, tls: ssl.SSLContext | None) -> None:
        super().__init__(target.host, target.port)
        self.default_port = DEFAULT_PORTS[target.scheme]  # which the Host header leaves out
        self.deadline = _Deadline()
        self._address = address
        self._tls = tls

    def connect(self) -> None:
        """Connect to the address, and prove the host's name to TLS; the name is not resolved again."""
        family = socket.AF_INET6 if ":" in self._address else socket.AF_INET
        self.sock = plain = _Socket(family, socket.SOCK_STREAM)
        plain.settimeout(self.deadline.left())
        plain.connect((self._address, self.port))
        plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        plain.deadline = self.deadline
        if self._tls is not None:
            plain.settimeout(self.deadline.left())
            tls: Any = self._tls.wrap_socket(plain, server_hostname=self.host)
            tls.deadline = self.deadline
            self.sock = tls


def _joined(url: str, location: str) -> str:
    try:
        return urljoin(url, location)
    except ValueError as exc:
        raise InvalidItemError("the server redirects to what is not a valid URL") from exc


def _check_status(status: int) -> None:
    if status == 200:
        return
    answered = f"the server answered with status {status}"
    raise status_error(status)(answered)


def _unresolved(exc: socket.gaierror) -> ItemError:
    if exc.errno == socket.EAI_AGAIN:
        return FetchFailedError("the host's name could not be resolved for now")
    return NotFoundError("there is no host of this name")


def _reason(exc: Exception) -> str:
    text = (exc.strerror if isinstance(exc, OSError) else None) or type(exc).__name__
    return "".join(c for c in text if c.isprintable())
