"""Images by URL, from a real server on this machine: answers, sizes, times, redirects."""

from __future__ import annotations

import socket
import threading

import pytest

from jobs.asking import ATTEMPTS, FIRST_WAIT_S
from jobs.errors import (
    FetchFailedError,
    FetchTimeoutError,
    ForbiddenError,
    InvalidItemError,
    ItemError,
    NotFoundError,
    TooLargeError,
)
from tests.support.image_server import IMAGE, SHORT_S, Make, Server, fails
from worker.fetch import Fetcher

# -- answers --------------------------------------------------------------------------------------


def test_an_image_is_fetched_by_its_url(server: Server, fetcher: Fetcher) -> None:
    assert fetcher.fetch(server.url("/image/cat.jpg?size=large#top")) == IMAGE
    assert list(server.asked) == ["/image/cat.jpg?size=large"]


def test_a_url_is_sent_percent_encoded_and_once_only(server: Server, fetcher: Fetcher) -> None:
    assert fetcher.fetch(server.url("/image/grüße 1%20.jpg?q=ä b")) == IMAGE
    assert list(server.asked) == ["/image/gr%C3%BC%C3%9Fe%201%20.jpg?q=%C3%A4%20b"]


def test_one_connection_serves_many_images(server: Server, fetcher: Fetcher) -> None:
    for number in range(5):
        fetcher.fetch(server.url(f"/image/{number}"))
    assert server.connections == 1


def test_a_server_that_closes_its_connections_is_asked_on_new_ones(server: Server, fetcher: Fetcher) -> None:
    for _ in range(3):
        assert fetcher.fetch(server.url("/closing")) == IMAGE
    assert server.connections == 3


def test_a_connection_that_was_closed_while_idle_costs_no_image(server: Server, fetcher: Fetcher) -> None:
    for _ in range(3):
        assert fetcher.fetch(server.url("/silently-closing")) == IMAGE
    assert server.asked["/silently-closing"] == 3


def test_threads_share_a_fetcher(server: Server, fetcher: Fetcher) -> None:
    got: list[bytes] = []
    threads = [threading.Thread(target=lambda: got.append(fetcher.fetch(server.url("/image")))) for _ in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert got == [IMAGE] * 12


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        *((404, NotFoundError), (410, NotFoundError), (401, ForbiddenError), (403, ForbiddenError)),
        *((400, InvalidItemError), (204, InvalidItemError), (304, InvalidItemError)),
        *((429, FetchFailedError), (500, FetchFailedError), (503, FetchFailedError)),
    ],
)
def test_each_status_is_an_error_of_its_kind(
    server: Server, fetcher: Fetcher, status: int, kind: type[ItemError]
) -> None:
    assert str(status) in fails(fetcher, server.url(f"/status/{status}"), kind)
    assert server.asked[f"/status/{status}"] == (ATTEMPTS if kind.transient else 1)


def test_what_is_no_http_is_a_failed_fetch(server: Server, fetcher: Fetcher) -> None:
    fails(fetcher, server.url("/nonsense"), FetchFailedError)


def test_a_server_that_is_not_there_is_a_failed_fetch(make: Make, server: Server) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
    fetcher = make(f"127.0.0.1:{port}")
    assert "refused" in fails(fetcher, f"http://127.0.0.1:{port}/", FetchFailedError)


# -- size and time --------------------------------------------------------------------------------


def test_an_image_of_exactly_the_limit_is_taken(server: Server, fetcher: Fetcher) -> None:
    assert len(fetcher.fetch(server.url("/image"))) == fetcher.max_bytes


def test_a_body_that_says_it_is_too_large_is_not_read(server: Server, fetcher: Fetcher) -> None:
    assert "1000000000000 bytes" in fails(fetcher, server.url("/claims/1000000000000"), TooLargeError)


def test_a_body_without_an_end_is_left_at_the_limit(server: Server, fetcher: Fetcher) -> None:
    assert "more than" in fails(fetcher, server.url("/endless"), TooLargeError)


def test_a_body_that_breaks_off_is_a_failed_fetch(make: Make, server: Server) -> None:
    fetcher = make(f"127.0.0.1:{server.port}")
    assert "closed" in fails(fetcher, server.url(f"/claims/{len(IMAGE) + 1}"), FetchFailedError)


@pytest.mark.parametrize("path", ["/silent", "/drip", "/drip-head"])
def test_a_slow_server_is_a_timeout_however_slowly_it_sends(make: Make, server: Server, path: str) -> None:
    fetcher = make(f"127.0.0.1:{server.port}", timeout_s=SHORT_S)
    fails(fetcher, server.url(path), FetchTimeoutError)
    assert server.asked[path] <= 1


def test_a_fault_that_passes_costs_waits_that_grow_and_vary(make: Make, server: Server) -> None:
    waits: list[float] = []
    fetcher = make(f"127.0.0.1:{server.port}", sleep=waits.append)
    assert fetcher.fetch(server.url("/flaky")) == IMAGE
    assert server.asked["/flaky"] == 3
    for number, wait in enumerate(waits):
        assert FIRST_WAIT_S * 2**number / 2 <= wait <= FIRST_WAIT_S * 2**number
    assert len(waits) == 2


def test_there_is_no_second_attempt_that_could_not_be_waited_for(make: Make, server: Server) -> None:
    fetcher = make(f"127.0.0.1:{server.port}", timeout_s=FIRST_WAIT_S / 2, sleep=pytest.fail)
    fails(fetcher, server.url("/status/503"), FetchFailedError)


# -- redirects ------------------------------------------------------------------------------------


def test_redirects_are_followed_up_to_a_number(server: Server, fetcher: Fetcher) -> None:
    assert fetcher.fetch(server.url("/hops/5")) == IMAGE
    assert "5 times" in fails(fetcher, server.url("/hops/6"), InvalidItemError)


def test_a_redirect_to_nowhere_is_invalid(server: Server, fetcher: Fetcher) -> None:
    fails(fetcher, server.url("/nowhere"), InvalidItemError)


@pytest.mark.parametrize(
    ("location", "kind"),
    [
        ("http://127.0.0.1:1/metadata", ForbiddenError),
        ("http://localhost/", ForbiddenError),
        ("http://169.254.169.254/latest/", ForbiddenError),
        ("//169.254.169.254/latest/", ForbiddenError),
        ("file:///etc/passwd", InvalidItemError),
        ("ftp://127.0.0.1/x", InvalidItemError),
        ("http://user:word@127.0.0.1/", InvalidItemError),
        ("http://[bad/", InvalidItemError),
    ],
)
def test_each_hop_of_a_redirect_is_held_to_the_rules(
    server: Server, fetcher: Fetcher, location: str, kind: type[ItemError]
) -> None:
    fails(fetcher, server.url(f"/to/{location}"), kind)
