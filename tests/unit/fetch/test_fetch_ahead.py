"""Fetching ahead: several images at once, over the ends of chunks, and no more than that."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence

import pytest

from jobs.errors import FetchTimeoutError
from worker import ahead
from worker.ahead import AHEAD, FetchAhead

PATIENCE_S = 30
URLS = [f"https://photos.example/{number}.jpg" for number in range(3 * AHEAD)]


def echo(ref: str) -> bytes:
    return ref.encode()


def fetched(refs: Sequence[str], fetch: Callable[[str], bytes]) -> list[bytes]:
    """What comes of references that are expected and then asked for."""
    one = FetchAhead(fetch)
    one.expect(refs)
    return [one.fetch(ref) for ref in refs]


def test_remote_images_are_fetched_together_and_given_in_order() -> None:
    together = threading.Barrier(AHEAD)

    def fetch(ref: str) -> bytes:
        together.wait(PATIENCE_S)  # none is answered before so many are asked for at once
        return ref.encode()

    assert fetched(URLS, fetch) == [url.encode() for url in URLS]


def test_what_comes_after_is_asked_for_where_there_is_room() -> None:
    """As many chunks of two as it takes for all threads to have an image."""
    chunks = [URLS[start : start + 2] for start in range(0, 2 * AHEAD, 2)]
    together = threading.Barrier(AHEAD)
    coming = iter(chunks[1:])

    def fetch(ref: str) -> bytes:
        together.wait(PATIENCE_S)
        return ref.encode()

    one = FetchAhead(fetch, lambda: next(coming, ()))
    one.expect(chunks[0])
    for chunk in chunks:
        assert [one.fetch(ref) for ref in chunk] == [ref.encode() for ref in chunk]


def test_no_more_are_held_than_that() -> None:
    asked: list[str] = []

    def fetch(ref: str) -> bytes:
        asked.append(ref)
        return b""

    one = FetchAhead(fetch)
    one.expect(URLS)
    for done, url in enumerate(URLS):
        assert len(asked) <= done + AHEAD
        one.fetch(url)
    assert sorted(asked) == sorted(URLS)


def test_nor_more_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    one = FetchAhead(echo)
    one.expect(URLS)
    one.fetch(URLS[0])
    assert len(one._under_way) == AHEAD
    for future in one._under_way.values():
        future.result(PATIENCE_S)
    monkeypatch.setattr(ahead, "HELD_BYTES", len(URLS[0]))
    for left in range(AHEAD - 1, 0, -1):  # what is asked for now is not replaced
        assert one.fetch(next(iter(one._under_way))) in map(echo, URLS)
        assert len(one._under_way) == left
    one.fetch(next(iter(one._under_way)))
    assert len(one._under_way) > 0


def test_what_fails_fails_alone_and_only_where_it_is_asked_for() -> None:
    def fetch(ref: str) -> bytes:
        if ref == URLS[1]:
            raise FetchTimeoutError()
        return ref.encode()

    one = FetchAhead(fetch)
    one.expect(URLS[:3])
    assert one.fetch(URLS[0]) == URLS[0].encode()
    with pytest.raises(FetchTimeoutError):
        one.fetch(URLS[1])
    assert one.fetch(URLS[2]) == URLS[2].encode()


def test_files_are_read_by_whoever_asks_and_a_repeat_is_fetched_again() -> None:
    by: list[tuple[str, bool]] = []

    def fetch(ref: str) -> bytes:
        by.append((ref, threading.current_thread() is threading.main_thread()))
        return ref.encode()

    refs = ["/a.jpg", URLS[0], "blob:1", URLS[1], URLS[0]]
    assert fetched(refs, fetch) == [ref.encode() for ref in refs]
    assert sorted(by) == sorted(
        [("/a.jpg", True), (URLS[0], False), ("blob:1", True), (URLS[1], False), (URLS[0], True)]
    )


def test_what_is_not_expected_is_fetched_by_whoever_asks() -> None:
    assert FetchAhead(lambda ref: threading.current_thread().name.encode()).fetch(URLS[0]) == b"MainThread"


def test_what_is_forgotten_is_not_given() -> None:
    """Another answer may be right by then."""
    answers = iter([b"old", b"new"])
    one = FetchAhead(lambda ref: next(answers))
    one.expect([URLS[0], URLS[0]])
    one._send()
    one._under_way[URLS[0]].result(PATIENCE_S)
    one.forget()
    assert one.fetch(URLS[0]) == b"new"
