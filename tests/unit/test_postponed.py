"""What is put off of a chunk that takes too long, and what never is."""

from __future__ import annotations

from types import SimpleNamespace

import fakeredis
import pytest

from jobs.content_cache import ContentCache
from jobs.errors import ItemError, item_error
from jobs.items import decode_outcomes
from jobs.ledger import Ledger
from tests.support.brightness import Brightness, decode
from worker.cached import run_cached
from worker.engine import Budget, Engine
from worker.models.runtime import Images, Scores
from worker.postponed import InTime, PostponedError, split_postponed


def a_cache() -> ContentCache:
    return ContentCache(Ledger(fakeredis.FakeRedis(version=(6, 2))), ttl_s=60, entries=100)


def put_off(engine: Engine, budget: InTime, *, is_cached: bool) -> list[int]:
    """Which of fifty images are put off."""
    refs = [str(n) for n in range(50)]
    if is_cached:
        done, _ = run_cached(engine, refs, budget.fetch, a_cache(), top_k=1, budget=budget)
    else:
        done = engine.run(refs, budget.fetch, top_k=1, budget=budget)
    return split_postponed(done)[1]


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The time that budgets see, in seconds, as its one element."""
    now = [0.0]
    monkeypatch.setattr("worker.postponed.time", SimpleNamespace(monotonic=lambda: now[0]))
    return now


class Overdue(Budget):
    def late_to_predict(self) -> PostponedError | None:
        return PostponedError()


def test_the_first_item_is_never_put_off_even_when_it_is_asked_for_again() -> None:
    budget = InTime(str.encode, 0.0, 0.0)
    for _ in range(2):
        assert budget.fetch("first") == b"first"
        with pytest.raises(PostponedError):
            budget.fetch("second")


def test_what_was_decoded_in_one_go_is_put_off_where_predictions_take_too_long() -> None:
    class AfterThree(Budget):
        looks = 0

        def late_to_predict(self) -> PostponedError | None:
            self.looks += 1
            return PostponedError() if self.looks == 3 else None

    model = Brightness()
    refs = [str(level) for level in range(8)]
    done = Engine(model, decode, batch_size=2).run(refs, str.encode, top_k=1, budget=AfterThree())
    assert model.batches == [2, 2, 2]
    result, postponed = split_postponed(done)
    assert postponed == [6, 7]
    assert [outcome[0] for outcome in decode_outcomes(result.lines)] == [0, 1, 2, 3, 0, 1]
    assert (result.succeeded, result.failed) == (6, 0)


@pytest.mark.parametrize("is_cached", [False, True])
def test_what_was_fetched_in_time_is_done_however_long_fetching_took(clock: list[float], is_cached: bool) -> None:
    """Fifty images, of which each takes a second to come and a tenth to be predicted: thirty come in time."""

    def fetch(ref: str) -> bytes:
        clock[0] += 1.0
        return ref.encode()

    class Slow(Brightness):
        def predict(self, images: Images) -> Scores:
            clock[0] += 0.1 * len(images)
            return super().predict(images)

    engine = Engine(Slow(), decode, batch_size=2)
    budget = InTime(fetch, 30.0, 15.0)
    assert put_off(engine, budget, is_cached=is_cached) == list(range(30, 50))


@pytest.mark.parametrize("is_cached", [False, True])
def test_one_slow_answer_at_the_end_costs_nothing_that_came_before_it(clock: list[float], is_cached: bool) -> None:
    """Of fifty images 29 come within a second each, and the next one takes ten: all thirty are done."""

    def fetch(ref: str) -> bytes:
        clock[0] += 9.9 if ref == "29" else 1.0
        return ref.encode()

    engine = Engine(Brightness(), decode, batch_size=2)
    budget = InTime(fetch, 30.0, 15.0)
    assert put_off(engine, budget, is_cached=is_cached) == list(range(30, 50))


@pytest.mark.parametrize("is_cached", [False, True])
def test_what_was_read_at_once_is_put_off_where_decoding_takes_too_long(clock: list[float], is_cached: bool) -> None:
    """Small files may be large pictures: fifty that come at once, and of which each takes a second to be decoded."""

    def slow(data: bytes, out: Images) -> None:
        clock[0] += 1.0
        decode(data, out)

    engine = Engine(Brightness(), slow, batch_size=50)
    budget = InTime(str.encode, 30.0, 15.0)
    assert put_off(engine, budget, is_cached=is_cached) == list(range(38, 50))
    assert clock == [38.0]


def test_the_first_image_is_decoded_however_late_it_is() -> None:
    budget = InTime(str.encode, 0.0, 0.0)
    done = Engine(Brightness(), decode, batch_size=2).run(["1", "2"], str.encode, top_k=1, budget=budget)
    assert split_postponed(done)[1] == [1]


def test_a_cached_chunk_whose_predictions_take_too_long_is_put_off() -> None:
    refs = ["1", "2", "3", "1", "3"]
    cache = a_cache()
    engine = Engine(Brightness(), decode, batch_size=2)
    done, hits = run_cached(engine, refs, str.encode, cache, top_k=1, budget=Overdue())
    result, postponed = split_postponed(done)
    assert (postponed, hits) == ([2, 4], 2)
    assert [outcome[0] for outcome in decode_outcomes(result.lines)] == [1, 2, 1]
    again, _ = run_cached(engine, refs, str.encode, cache, top_k=1, budget=Overdue())
    assert [outcome[0] for outcome in decode_outcomes(again.lines)] == [1, 2, 3, 1, 3]


def test_the_first_batch_is_never_put_off() -> None:
    done = Engine(Brightness(), decode, batch_size=2).run(["1", "2", "3"], str.encode, top_k=1, budget=Overdue())
    assert split_postponed(done)[1] == [2]


def test_no_sender_can_have_an_item_put_off() -> None:
    assert type(item_error(PostponedError.code)) is ItemError
    assert type(item_error("corrupt_image")).code == "corrupt_image"
