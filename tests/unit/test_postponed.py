"""What is put off of a chunk that takes too long, and what never is."""

from __future__ import annotations

import pytest

from jobs.errors import ItemError, item_error
from jobs.items import Item, decode_outcomes
from tests.support.brightness import Brightness, decode
from worker.engine import Engine
from worker.postponed import InTime, PostponedError, split_postponed


def test_the_first_item_is_never_put_off_even_when_it_is_asked_for_again() -> None:
    budget = InTime(str.encode, 0.0)
    for _ in range(2):
        assert budget.fetch("first") == b"first"
        with pytest.raises(PostponedError):
            budget.fetch("second")


def test_what_was_decoded_in_one_go_is_put_off_where_predictions_take_too_long() -> None:
    now = iter([False, False, True, True])

    def late() -> PostponedError | None:
        return PostponedError() if next(now) else None

    model = Brightness()
    items = [Item(str(level), str(level)) for level in range(8)]
    done = Engine(model, decode, batch_size=2).run(items, str.encode, top_k=1, late=late)
    assert model.batches == [2, 2, 2]
    result, postponed = split_postponed(done)
    assert postponed == [6, 7]
    assert [outcome[0] for outcome in decode_outcomes(result.lines)] == [0, 1, 2, 3, 0, 1]
    assert (result.succeeded, result.failed) == (6, 0)


def test_the_first_batch_is_never_put_off() -> None:
    items = [Item("a", "1"), Item("b", "2"), Item("c", "3")]
    done = Engine(Brightness(), decode, batch_size=2).run(items, str.encode, top_k=1, late=PostponedError)
    assert split_postponed(done)[1] == [2]


def test_no_sender_can_have_an_item_put_off() -> None:
    assert type(item_error(PostponedError.code)) is ItemError
    assert type(item_error("corrupt_image")).code == "corrupt_image"
