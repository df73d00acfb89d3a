"""Fetching ahead: several images of a chunk at once, and no more than that."""

from __future__ import annotations

import threading

import pytest

from jobs.errors import FetchTimeoutError
from worker.ahead import AHEAD, fetching_ahead
from worker.fetch import is_remote

PATIENCE_S = 30
URLS = [f"https://photos.example/{number}.jpg" for number in range(3 * AHEAD)]


def test_remote_images_are_fetched_together_and_given_in_order() -> None:
    together = threading.Barrier(AHEAD)

    def fetch(ref: str) -> bytes:
        together.wait(PATIENCE_S)  # none is answered before so many are asked for at once
        return ref.encode()

    with fetching_ahead(URLS, fetch, is_remote=is_remote) as fetch_next:
        assert [fetch_next(url) for url in URLS] == [url.encode() for url in URLS]


def test_no_more_are_held_than_that() -> None:
    asked: list[str] = []

    def fetch(ref: str) -> bytes:
        asked.append(ref)
        return b""

    with fetching_ahead(URLS, fetch, is_remote=is_remote) as fetch_next:
        for done, url in enumerate(URLS):
            assert len(asked) <= done + AHEAD
            fetch_next(url)
    assert sorted(asked) == sorted(URLS)


def test_what_fails_fails_alone_and_only_where_it_is_asked_for() -> None:
    def fetch(ref: str) -> bytes:
        if ref == URLS[1]:
            raise FetchTimeoutError()
        return ref.encode()

    with fetching_ahead(URLS, fetch, is_remote=is_remote) as fetch_next:
        assert fetch_next(URLS[0]) == URLS[0].encode()
        with pytest.raises(FetchTimeoutError):
            fetch_next(URLS[1])
        assert fetch_next(URLS[2]) == URLS[2].encode()


def test_files_are_read_by_whoever_asks_and_a_repeat_is_fetched_again() -> None:
    by: list[tuple[str, bool]] = []

    def fetch(ref: str) -> bytes:
        by.append((ref, threading.current_thread() is threading.main_thread()))
        return ref.encode()

    refs = ["/a.jpg", URLS[0], "blob:1", URLS[1], URLS[0]]
    with fetching_ahead(refs, fetch, is_remote=is_remote) as fetch_next:
        assert [fetch_next(ref) for ref in refs] == [ref.encode() for ref in refs]
    assert sorted(by) == sorted(
        [("/a.jpg", True), (URLS[0], False), ("blob:1", True), (URLS[1], False), (URLS[0], True)]
    )
