"""How the gateway takes requests in: gunicorn's threaded worker, with patience for slow clients that costs no thread.

A request gets a thread when its head is there whole, and its body or the first 64 KiB of it; until then the poller
gathers it. The rest of a large body is read by a thread, but has to come at :data:`BYTES_PER_S`, and only so many are
received at once (``bodies.py``). A client that sends a byte a second so holds up nobody, however many there are.
"""

from __future__ import annotations

import errno
import json
import re
import socket
import time
from collections import OrderedDict
from concurrent.futures import Future
from functools import partial
from http import HTTPStatus
from typing import Any

from gunicorn import util
from gunicorn.http import errors
from gunicorn.workers.gthread import TConn, ThreadWorker

__all__ = ["Gathered", "IntakeWorker", "PacedSocket"]

#: Seconds in which a head and a small body must be there, and in which a peer may close after our last byte.
HEAD_S, LINGER_S = 10.0, 2.0
#: So much of a body is gathered before a thread takes it, in bytes.
SMALL_BODY = 64 << 10
#: A head longer than this is left to the parser, which refuses it.
MAX_HEAD = 64 << 10
#: A large body must come at this rate, in bytes/s, after so many seconds of grace.
BYTES_PER_S, GRACE_S = 1024, 10.0
#: Seconds that one write to a client may take.
WRITE_S = 60.0
#: Requests that may wait for a thread, for each thread.
QUEUED_PER_THREAD = 2

#: Errors of the parser's kind that the application makes.
_OURS = (errors.InvalidResponseHeader, errors.InvalidResponseHeaderName)

_LENGTH = re.compile(rb"\r\ncontent-length:[ \t]*(\d{1,19})[ \t]*\r\n", re.IGNORECASE)
_CHUNKED = re.compile(rb"\r\ntransfer-encoding:", re.IGNORECASE)
_EXPECT = re.compile(rb"\r\nexpect:", re.IGNORECASE)


def _refusal(status: int, code: str, detail: str, headers: str = "") -> bytes:
    """An answer that needs no thread."""
    title = HTTPStatus(status).phrase
    kind = f"urn:labelmill:error:{code}"
    body = json.dumps({"type": kind, "title": title, "status": status, "detail": detail, "code": code})
    head = f"HTTP/1.1 {status} {title}\r\nContent-Type: application/problem+json\r\nConnection: close\r\n{headers}"
    head += "X-Content-Type-Options: nosniff\r\nCache-Control: no-store\r\n"
    return f"{head}Content-Length: {len(body)}\r\n\r\n{body}".encode()


#: What the parser finds wrong, where it is not simply a bad request.
_MALFORMED = {
    errors.LimitRequestLine: (414, "uri_too_long", "the request line is too long"),
    errors.LimitRequestHeaders: (431, "headers_too_large", "the headers are too large"),
    errors.UnsupportedTransferCoding: (501, "unsupported_coding", "only chunked transfer coding is known"),
    errors.ExpectationFailed: (417, "expectation_failed", "only 100-continue can be expected"),
}
_BAD_REQUEST = (400, "bad_request", "this is no HTTP request that can be read")
_TOO_SLOW = _refusal(408, "request_timeout", "the request came too slowly")
_TOO_BUSY = _refusal(503, "busy", "too many requests at once", "Retry-After: 2\r\n")


class Gathered:
    """What has come of a request so far."""

    def __init__(self) -> None:
        self.data = bytearray()
        self._enough = 0
        self._chunked = False

    def add(self, data: bytes) -> bool:
        """Put bytes to it; True when a thread can take it: the head is whole, and the body, or enough of it."""
        self.data += data
        if not self._enough:
            self._enough = self._measure()
        if self._chunked and self.data.endswith(b"0\r\n\r\n"):
            return True
        return bool(self._enough) and len(self.data) >= self._enough

    def _measure(self) -> int:
        """The size that is enough; 0 while the head is not whole."""
        end = self.data.find(b"\r\n\r\n")
        if end < 0:
            return len(self.data) if len(self.data) > MAX_HEAD else 0
        head = bytes(self.data[: end + 4])
        if _EXPECT.search(head):
            return len(head)  # its sender waits for a word before it goes on
        self._chunked = bool(_CHUNKED.search(head))
        length = _LENGTH.search(head)
        body = SMALL_BODY if self._chunked else int(length[1]) if length else 0
        return len(head) + min(body, SMALL_BODY)


class PacedSocket:
    """A socket that gives up on a peer that sends more slowly than :data:`BYTES_PER_S`, waiting included."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self.restart()

    def restart(self) -> None:
        """A new request begins."""
        self._waited_s = 0.0
        self._received = 0

    def recv(self, size: int) -> bytes:
        """Like a socket's; raises TimeoutError."""
        left = GRACE_S + self._received / BYTES_PER_S - self._waited_s
        if left <= 0:
            raise TimeoutError("too slow")
        self._sock.settimeout(left)
        started = time.monotonic()
        try:
            data = self._sock.recv(size)
        finally:
            self._waited_s += time.monotonic() - started
            self._sock.settimeout(WRITE_S)
        self._received += len(data)
        return data

    def gettimeout(self) -> float | None:
        """Like a socket's."""
        return self._sock.gettimeout()

    def settimeout(self, timeout: float | None) -> None:
        """Like a socket's."""
        self._sock.settimeout(timeout)


class _Connection(TConn):  # type: ignore[misc]
    """A connection that is closed without holding up the poller."""

    def __init__(self, worker: IntakeWorker, sock: socket.socket, client: Any, server: Any) -> None:
        super().__init__(worker.cfg, sock, client, server)
        self._worker = worker
        self.paced: PacedSocket | None = None

    def start(self, data: bytes) -> None:
        """A thread can take the request that begins with ``data``."""
        self.sock.setblocking(True)
        self.init()
        if self.paced is None:
            self.paced = self.parser.unreader.sock = PacedSocket(self.sock)
        self.paced.restart()
        self.parser.unreader.unread(data)

    def close(self, graceful: bool = False) -> None:
        """Close; ``graceful`` lets the peer read our last bytes first."""
        if graceful:
            self._worker.linger(self)
        else:
            util.close(self.sock)


class IntakeWorker(ThreadWorker):  # type: ignore[misc]
    """gunicorn's threaded worker, with the intake before it."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._gathering: OrderedDict[_Connection, tuple[float, Gathered]] = OrderedDict()
        self._lingering: OrderedDict[socket.socket, float] = OrderedDict()
        self._in_pool = 0

    def accept(self, listener: socket.socket) -> None:
        """Take a connection and wait for its first request, in the poller."""
        try:
            sock, client = listener.accept()
        except (BlockingIOError, ConnectionAbortedError):
            return
        except OSError as exc:
            if exc.errno not in (errno.EMFILE, errno.ENFILE):
                raise
            self.log.error("no file descriptor is left for another connection: raise the limit on open files")
            self.set_accept_enabled(False)  # run() takes it up again after the next event
            return
        self.nr_conns += 1
        self._gather(_Connection(self, sock, client, listener.getsockname()))

    def on_client_socket_readable(self, conn: _Connection, client: socket.socket) -> None:
        """The next request on a connection that was kept."""
        self.poller.unregister(client)
        self.keepalived_conns.remove(conn)
        self._gather(conn)

    def _gather(self, conn: _Connection) -> None:
        conn.sock.setblocking(False)
        self._gathering[conn] = (time.monotonic() + HEAD_S, Gathered())
        self.poller.register(conn.sock, 1, partial(self._on_bytes, conn))

    def _on_bytes(self, conn: _Connection, sock: socket.socket) -> None:
        _, gathered = self._gathering[conn]
        try:
            data = sock.recv(SMALL_BODY)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self._let_go(conn)
        elif gathered.add(data):
            self.poller.unregister(sock)
            del self._gathering[conn]
            self._hand_on(conn, bytes(gathered.data))

    def _hand_on(self, conn: _Connection, data: bytes) -> None:
        if self._in_pool >= self.cfg.threads * (1 + QUEUED_PER_THREAD):
            self._refuse(conn, _TOO_BUSY)
            return
        try:
            conn.start(data)
        except OSError:
            self.nr_conns -= 1
            conn.close()
            return
        self.enqueue_req(conn)

    def enqueue_req(self, conn: _Connection) -> None:
        """Have a thread take a request."""
        self._in_pool += 1
        super().enqueue_req(conn)

    def finish_request(self, conn: _Connection, fs: Future[Any]) -> None:
        """A thread is done with a request."""
        self._in_pool -= 1
        super().finish_request(conn, fs)

    def handle_request(self, req: Any, conn: _Connection) -> bool:
        """In a thread: answer. A client that reads too slowly is left."""
        conn.sock.settimeout(WRITE_S)
        try:
            return bool(super().handle_request(req, conn))
        except TimeoutError:
            self.log.debug("a client was too slow")
            return False

    def handle_error(self, req: Any, client: socket.socket, addr: Any, exc: Exception) -> None:
        """What never came to the application. Nothing that was sent is said again, here or in the log: not a token."""
        if isinstance(exc, errors.ParseException) and not isinstance(exc, _OURS):
            self.log.warning("a request that cannot be read: %s", type(exc).__name__)
            answer = _refusal(*_MALFORMED.get(type(exc), _BAD_REQUEST))
        else:
            self.log.error("unforeseen", exc_info=exc)
            answer = _refusal(500, "internal_error", "something went wrong here; it was logged")
        try:
            util.write_nonblock(client, answer)
        except OSError:
            self.log.debug("nobody was there to be told")

    def murder_pending(self) -> None:
        """Called about once a second: let go of who is late; of who has sent nothing yet, too, when stopping."""
        super().murder_pending()
        now = time.monotonic()
        for conn, (deadline, gathered) in list(self._gathering.items()):
            if deadline <= now and gathered.data:
                self.poller.unregister(conn.sock)
                del self._gathering[conn]
                self._refuse(conn, _TOO_SLOW)
            elif deadline <= now or not (self.alive or gathered.data):
                self._let_go(conn)
        for sock, deadline in list(self._lingering.items()):
            if deadline <= now:
                self._end(sock)

    def handle_exit(self, sig: int, frame: Any) -> None:
        """SIGTERM: streams end, requests under way are answered."""
        app = getattr(self, "wsgi", None)  # not there yet while the process starts
        if app is not None:
            app.extensions["labelmill"].stopping.set()
        super().handle_exit(sig, frame)

    def linger(self, conn: _Connection) -> None:
        """Close when the peer has, or after :data:`LINGER_S`: what we sent last is not cut off (RFC 9112, 9.6)."""
        try:
            conn.sock.setblocking(False)
            conn.sock.shutdown(socket.SHUT_WR)
            self.poller.register(conn.sock, 1, self._discard)
        except (OSError, ValueError, KeyError):
            util.close(conn.sock)
            return
        self._lingering[conn.sock] = time.monotonic() + LINGER_S

    def _discard(self, sock: socket.socket) -> None:
        try:
            if sock.recv(SMALL_BODY):
                return
        except BlockingIOError:
            return
        except OSError:
            pass
        self._end(sock)

    def _end(self, sock: socket.socket) -> None:
        self._lingering.pop(sock, None)
        self.poller.unregister(sock)
        util.close(sock)

    def _refuse(self, conn: _Connection, answer: bytes) -> None:
        self.nr_conns -= 1
        try:
            conn.sock.send(answer)
        except OSError:
            conn.close()
            return
        conn.close(graceful=True)

    def _let_go(self, conn: _Connection) -> None:
        del self._gathering[conn]
        self.poller.unregister(conn.sock)
        self.nr_conns -= 1
        conn.close()
