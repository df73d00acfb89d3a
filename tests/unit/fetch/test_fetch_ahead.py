"""Fetching ahead: several images at once, over the ends of chunks, and no more than that."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence

import pytest

from jobs.errors import FetchTimeoutError
from worker.ahead import AHEAD, AT_FIRST, FetchAhead

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
    together = threading.Barrier(AT_FIRST)

    def fetch(ref: str) -> bytes:
        if ref in URLS[:AT_FIRST]:
            together.wait(PATIENCE_S)  # none is answered before so many are asked for at once
        return ref.encode()

    assert fetched(URLS, fetch) == [url.encode() for url in URLS]


def test_what_comes_after_is_asked_for_where_there_is_room() -> None:
    """As many chunks of two as it takes for all threads to have an image."""
    chunks = [URLS[start : start + 2] for start in range(0, 2 * AHEAD, 2)]
    together = threading.Barrier(AHEAD)
    coming = iter(chunks[1:])

    def fetch(ref: str) -> bytes:
        if ref in URLS[AT_FIRST : AT_FIRST + AHEAD]:
            together.wait(PATIENCE_S)
        return ref.encode()

    one = FetchAhead(fetch, lambda: next(coming, ()))
    one.expect(chunks[0])
    for chunk in chunks:
        assert [one.fetch(ref) for ref in chunk] == [ref.encode() for ref in chunk]


@pytest.mark.parametrize("size", [1, 4 << 20, 200 << 20])
def test_as_many_are_under_way_as_their_size_allows(size: int) -> None:
    """Few while none has come; never none."""

    class Data(bytes):
        def __len__(self) -> int:
            return size

    one = FetchAhead(lambda ref: Data())
    one.expect(URLS)
    one._send()
    assert len(one._under_way) == AT_FIRST
    for url in URLS[:AHEAD]:
        one.fetch(url)
    one._send()
    assert len(one._under_way) == {1: AHEAD, 4 << 20: 16, 200 << 20: 1}[size]


def test_no_more_are_held_than_that() -> None:
    asked: list[str] = []

    def fetch(ref: str) -> bytes:
        asked.append(ref)
        return b"1"

    one = FetchAhead(fetch)
    one.expect(URLS)
    for done, url in enumerate(URLS):
        assert len(asked) <= done + AHEAD
        one.fetch(url)
    assert sorted(asked) == sorted(URLS)


def test_what_others_have_forgotten_makes_nobody_wait() -> None:
    """All threads are busy with that: whoever asks fetches it."""
    gate, begun = threading.Event(), threading.Semaphore(0)
    ended: list[str] = []

    def hang(ref: str) -> bytes:
        begun.release()
        gate.wait(PATIENCE_S)
        ended.append(ref)
        return b"1"

    hanging = [FetchAhead(hang) for _ in range(AHEAD // AT_FIRST)]
    for one in hanging:
        one.expect(URLS[:AT_FIRST])
        one._send()
    for _ in range(AHEAD):
        assert begun.acquire(timeout=PATIENCE_S)
    for one in hanging:
        one.forget()
    try:
        assert fetched(URLS[:3], echo) == [url.encode() for url in URLS[:3]]
        assert not ended
    finally:
        gate.set()


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
    asked: list[str] = []
    others: set[str] = set()

    def fetch(ref: str) -> bytes:
        asked.append(ref)
        if threading.current_thread() is not threading.main_thread():
            others.add(ref)
        return ref.encode()

    refs = ["/a.jpg", URLS[0], "blob:1", URLS[1], URLS[0]]
    assert fetched(refs, fetch) == [ref.encode() for ref in refs]
    assert sorted(asked) == sorted(refs)
    assert others <= {URLS[0], URLS[1]}


def test_what_is_not_expected_is_fetched_by_whoever_asks() -> None:
    assert FetchAhead(lambda ref: threading.current_thread().name.encode()).fetch(URLS[0]) == b"MainThread"


def test_what_is_forgotten_is_not_given() -> None:
    """Another answer may be right by then."""
    answers = iter([b"old", b"new"])
    one = FetchAhead(lambda ref: next(answers))
    one.expect([URLS[0]])
    one._send()
    one._under_way[0][1].result(PATIENCE_S)
    one.forget()
    assert one.fetch(URLS[0]) == b"new"
