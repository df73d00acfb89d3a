"""What is put off of a chunk that takes too long, and what never is."""

from __future__ import annotations

import pytest

from jobs.errors import ItemError, item_error
from worker.postponed import PostponedError, in_time


def test_the_first_item_is_never_put_off_even_when_it_is_asked_for_again() -> None:
    fetch = in_time(str.encode, 0.0)
    for _ in range(2):
        assert fetch("first") == b"first"
        with pytest.raises(PostponedError):
            fetch("second")


def test_no_sender_can_have_an_item_put_off() -> None:
    assert type(item_error(PostponedError.code)) is ItemError
    assert type(item_error("corrupt_image")).code == "corrupt_image"
