"""The content cache: the same bytes are not computed twice, and nothing else is mixed up."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any, cast

import fakeredis
import numpy as np
import pytest

from jobs.content_cache import ContentCache
from jobs.errors import CorruptImageError, NotFoundError
from jobs.ledger import Ledger
from worker.cached import run_cached, space_of
from worker.engine import ChunkResult, Engine
from worker.models.card import ModelCard, Preprocessing
from worker.models.runtime import Images, Scores

BYTES = {"/a": b"1", "/b": b"2", "/a2": b"1", "/bad": b"", "/c": b"3"}
CARD = ModelCard("m", ("x", "y"), Preprocessing(resize=None, crop=(1, 1)))


class Model:
    """Scores by the pixel's value, and counts what it computes."""

    decodes = True

    def __init__(self, card: ModelCard = CARD) -> None:
        self.card = card
        self.digest = "sha256:00"
        self.computed = 0

    def predict(self, images: Images) -> Scores:
        self.computed += len(images)
        value = images[:, 0, 0, 0].astype(np.float32) / 10
        return np.stack([value, 1 - value], axis=1)


def decode(data: bytes, out: Images) -> None:
    if not data:
        raise CorruptImageError()
    out[...] = int(data)


def fetch(ref: str) -> bytes:
    if ref not in BYTES:
        raise NotFoundError()
    return BYTES[ref]


@pytest.fixture
def cache() -> ContentCache:
    return ContentCache(Ledger(fakeredis.FakeRedis(version=(6, 2))), ttl_s=60, entries=100)


@pytest.fixture
def run(cache: ContentCache) -> Callable[..., tuple[ChunkResult, int, int]]:
    """``run(*refs)`` gives the results, the hits and how many images were computed."""

    def run(*refs: str, model: Model | None = None, top_k: int = 2) -> tuple[ChunkResult, int, int]:
        model = model or Model()
        done, hits = run_cached(Engine(model, decode), refs, fetch, cache, top_k=top_k)
        plain = Engine(model, decode).run(refs, fetch, top_k=top_k)
        assert (done.lines, done.succeeded, done.failed) == (plain.lines, plain.succeeded, plain.failed)
        return done, hits, model.computed - plain.succeeded

    return run


def test_the_same_bytes_are_computed_once_whatever_they_are_called(run: Any) -> None:
    assert run("/a", "/b", "/a2")[1:] == (1, 2)
    assert run("/a2", "/c", "/b")[1:] == (2, 1)
    assert run("/a", "/b", "/c")[1:] == (3, 0)


def test_failures_are_not_kept_and_fail_nobody_else(run: Any) -> None:
    for _ in range(2):
        done, hits, _ = run("/bad", "/a", "/missing", "/missing")
        assert (done.succeeded, done.failed) == (1, 3)
    assert hits == 1


def test_another_model_preprocessing_or_k_finds_nothing(run: Any) -> None:
    run("/a")
    assert run("/a", top_k=1)[1] == 0
    other = Model(replace(CARD, preprocessing=Preprocessing(resize=None, crop=(1, 1), interpolation="bicubic")))
    assert run("/a", model=other)[1] == 0
    newer = Model()
    newer.digest = "sha256:01"
    assert run("/a", model=newer)[1] == 0
    assert run("/a")[1] == 1


def test_it_is_bounded_and_the_oldest_go_first(cache: ContentCache) -> None:
    cache.entries = 3
    for number in range(10):
        assert cache.put("s", {bytes([number]): b"[0,1]"}) <= 3
    assert set(cache.get("s", [bytes([n]) for n in range(10)])) == {b"\x07", b"\x08", b"\x09"}


def test_what_nobody_adds_to_goes_whole(cache: ContentCache) -> None:
    cache.put("s", {b"a": b"[0,1]"})
    redis = cache.ledger.redis
    assert all(0 < cast("int", redis.pttl(key)) <= 60_000 for key in redis.keys("*"))


def test_entries_expire_one_by_one(cache: ContentCache) -> None:
    cache.put("s", {b"old": b"[0,1]"})
    cache.ledger.redis.zadd(f"{cache.ledger.prefix}cache:s:ages", {b"old": 1})
    assert cache.put("s", {b"new": b"[0,1]"}) == 1
    assert set(cache.get("s", [b"old", b"new"])) == {b"new"}


def test_a_space_is_of_the_model_file_and_what_belongs_to_it() -> None:
    engine = Engine(Model(), decode)
    assert space_of(engine, 1) == space_of(Engine(Model(), decode), 1)
    assert space_of(engine, 1) != space_of(engine, 2)
