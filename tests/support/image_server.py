"""A web server of images on this machine, with every fault that one can have, and what is fetched from it."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from jobs.errors import (
    ItemError,
)
from worker.fetch import Fetcher

__all__ = ["IMAGE", "SHORT_S", "Make", "Server", "fails"]

IMAGE = b"the bytes of an image " * 50
Make = Callable[..., Fetcher]
#: Seconds after which a fetch that must run into its limit does.
SHORT_S = 0.3


class Server(ThreadingHTTPServer):
    """Counts what it is asked and on how many connections."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.asked: Counter[str] = Counter()
        self.hosts: list[str] = []
        self.connections = 0
        self.stop = threading.Event()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that had enough of an answer hung up, as it should; what it made of it is what is tested."""

    @property
    def port(self) -> int:
        return int(self.server_address[1])

    def url(self, path: str, host: str = "127.0.0.1") -> str:
        return f"http://{host}:{self.port}{path}"


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Server

    def setup(self) -> None:
        super().setup()
        self.server.connections += 1

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing."""

    def do_GET(self) -> None:
        name, _, rest = self.path.lstrip("/").partition("/")
        self.server.asked[self.path] += 1
        self.server.hosts.append(self.headers["Host"])
        {
            "image": self.answer,
            "status": lambda: self.answer(int(rest), b"sorry"),
            "flaky": lambda: self.answer(503 if self.server.asked[self.path] < 3 else 200),
            "to": lambda: self.answer(302, b"", Location=rest),
            "nowhere": lambda: self.answer(302, b""),
            "hops": lambda: self.answer(302, b"", Location=f"/hops/{int(rest) - 1}") if rest != "0" else self.answer(),
            "closing": lambda: self.answer(Connection="close"),
            "silently-closing": self.close_after_answer,
            "claims": lambda: self.answer(length=int(rest)),
            "endless": self.never_end,
            "drip": self.drip,
            "drip-head": lambda: self.drip_bytes(b"HTTP/1.1 200 OK\r\n"),
            "silent": self.server.stop.wait,
            "nonsense": lambda: self.wfile.write(b"no HTTP at all\r\n\r\n"),
        }[name]()

    def answer(self, status: int = 200, body: bytes = IMAGE, length: int | None = None, **headers: str) -> None:
        self.send_response(status)
        for key, value in headers.items():
            self.send_header(key, value)
        self.send_header("Content-Length", str(len(body) if length is None else length))
        self.end_headers()
        self.wfile.write(body)
        self.close_connection = headers.get("Connection") == "close" or length is not None

    def close_after_answer(self) -> None:
        self.answer()
        self.close_connection = True

    def never_end(self) -> None:
        self.send_response(200)
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        piece = bytes(4096)
        try:
            while not self.server.stop.is_set():
                self.wfile.write(b"%x\r\n%s\r\n" % (len(piece), piece))
        except OSError:
            self.close_connection = True  # the other side had enough, as it should

    def drip(self) -> None:
        self.send_response(200)
        self.send_header("Connection", "close")
        self.end_headers()
        self.drip_bytes(b"x")

    def drip_bytes(self, text: bytes) -> None:
        """One byte now and then, each well within any time limit of its own."""
        self.close_connection = True
        try:
            while not self.server.stop.wait(SHORT_S / 10):
                self.wfile.write(text[:1])
                text = text[1:] or b"x"
        except OSError:
            return


def fails(fetcher: Fetcher, url: str, kind: type[ItemError]) -> str:
    with pytest.raises(kind) as raised:
        fetcher.fetch(url)
    assert type(raised.value) is kind
    assert raised.value.message.isprintable()
    assert "127.0.0.1" not in raised.value.message
    return raised.value.message
