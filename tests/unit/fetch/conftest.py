"""A server of images, and fetchers that ask it."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import ExitStack
from functools import partial
from typing import Any

import pytest

from tests.support.image_server import IMAGE, Make, Server
from worker.fetch import Fetcher


@pytest.fixture
def server() -> Iterator[Server]:
    server = Server()
    thread = threading.Thread(target=partial(server.serve_forever, poll_interval=0.01))
    thread.start()
    yield server
    server.stop.set()
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture
def make() -> Iterator[Make]:
    """Makes fetchers that do not wait between attempts, and closes them."""
    with ExitStack() as made:

        def make(*hosts: str, **options: Any) -> Fetcher:
            fetcher = Fetcher(url_hosts=hosts, **{"sleep": lambda _: None, **options})
            made.callback(fetcher.close)
            return fetcher

        yield make


@pytest.fixture
def fetcher(server: Server, make: Make) -> Fetcher:
    """One that may ask this server."""
    return make(f"127.0.0.1:{server.port}", max_bytes=len(IMAGE))
