"""A web server of a folder's images that is far away: it takes its time, or as long as a test wants."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

__all__ = ["ANSWER_S", "served"]

#: Seconds until it answers, so that some images are under way at any time.
ANSWER_S = 0.05


class _Handler(SimpleHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def __init__(self, *args: object, directory: str, hold: Callable[[str], object]) -> None:
        self._hold = hold
        super().__init__(*args, directory=directory)  # type: ignore[arg-type]

    def do_GET(self) -> None:
        self._hold(self.path.lstrip("/"))
        super().do_GET()

    def handle(self) -> None:
        try:
            super().handle()
        except ConnectionError:
            self.close_connection = True  # whoever asked was killed

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    #: Connections that wait to be taken; by default five, and the kernel has all others try again after 1, 3, 7 and 15
    #: seconds: longer than a worker waits for an image.
    request_queue_size = 1024


@contextmanager
def served(folder: Path, hold: Callable[[str], object] = lambda name: time.sleep(ANSWER_S)) -> Iterator[str]:
    """Serve a folder's files for the block; gives host and port. ``hold(name)`` is called before each answer."""
    handler = partial(_Handler, directory=str(folder), hold=hold)
    server = _Server(("127.0.0.1", 0), handler)
    Thread(target=server.serve_forever, name="far", daemon=True).start()
    try:
        yield f"127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()
