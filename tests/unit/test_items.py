"""The wire forms: what goes in comes out, and Lua can count it."""

from __future__ import annotations

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobs.errors import CorruptImageError, InvalidItemError, ModelRunError
from jobs.items import (
    MAX_ID_CHARS,
    Item,
    Result,
    check_items,
    decode_chunk,
    decode_outcomes,
    decode_refs,
    encode_chunk,
    encode_failure,
    encode_success,
    label_objects,
)

ids = st.text(st.characters(exclude_categories=("Cc", "Cs")), min_size=1, max_size=60)
fields = st.none() | st.dictionaries(
    st.text(max_size=5), st.integers(-(2**53), 2**53) | st.text(max_size=20), max_size=3
)
items = st.builds(Item, ids, ids, fields)


@given(st.lists(items, min_size=1, max_size=20), st.sampled_from(["", "/data", '/data/with "quotes"']))
def test_a_chunk_comes_back_as_it_was(chunk: list[Item], base: str) -> None:
    payload = encode_chunk(chunk, base=base, sent_ms=7)
    assert decode_chunk(payload).items == tuple(chunk)
    assert decode_refs(payload) == ([item.ref for item in chunk], 7)


@given(st.lists(ids | items, min_size=1, max_size=20))
def test_a_custom_id_alone_is_the_item_below_the_base(chunk: list[Item | str]) -> None:
    spelled_out = [Item(item, f"/data/{item}") if isinstance(item, str) else item for item in chunk]
    payload = encode_chunk(chunk, base="/data")
    assert payload == encode_chunk(spelled_out, base="/data")
    assert decode_chunk(payload).items == tuple(spelled_out)


@pytest.mark.parametrize("item", ["", "a\nb", "\udcff", "x" * (MAX_ID_CHARS + 1), "x" * MAX_ID_CHARS])
def test_a_custom_id_alone_is_checked_as_its_item_is(item: str) -> None:
    check_items(["fine", "\u2028"], base="/data")
    with pytest.raises(InvalidItemError):
        check_items(["fine", item], base="/data" * 700)


@given(st.lists(items, min_size=1, max_size=20))
def test_a_payload_has_one_newline_for_each_item(chunk: list[Item]) -> None:
    assert encode_chunk(chunk, base="/data").count(b"\n") == len(chunk)


def test_an_item_below_the_base_is_only_its_name_on_the_wire() -> None:
    assert encode_chunk([Item("a/b.jpg", "/data/a/b.jpg")], base="/data").split(b"\n")[1] == b'"a/b.jpg"'


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"[]",
        b'{"base":""}',
        b'{"base":"","t":1}\n["only-an-id"]',
        b'{"base":"","t":1}\n["id","ref",null,4]',
        b"\xff\n",
    ],
)
def test_a_payload_of_another_form_is_refused(payload: bytes) -> None:
    for read in (decode_chunk, decode_refs):
        with pytest.raises(InvalidItemError):
            read(payload)


@pytest.mark.parametrize(
    ("item", "reason"),
    [
        (Item("", "x"), "1 to"),
        (Item("x" * (MAX_ID_CHARS + 1), "x"), "1 to"),
        (Item("a\nb", "x"), "control"),
        (Item("a", "b\x00c"), "control"),
        (Item("\udcff", "x"), "control"),
    ],
)
def test_what_cannot_be_carried_is_named(item: Item, reason: str) -> None:
    with pytest.raises(InvalidItemError, match=reason):
        item.checked()


def test_a_success_is_indices_and_units() -> None:
    assert encode_success([967, 504], [0.95104, 0.00004]) == b"[967,9510,504,0]"


def test_a_failure_shows_the_text_of_the_senders_errors_only() -> None:
    assert orjson.loads(encode_failure(CorruptImageError("cut short"))) == ["corrupt_image", "cut short"]
    assert orjson.loads(encode_failure(ModelRunError("at /secret/path"))) == [
        "model_error",
        "The model failed on this image.",
    ]


def test_a_failures_text_is_one_line_of_bounded_length() -> None:
    code, message = orjson.loads(encode_failure(CorruptImageError("a\nb" * 1000)))
    assert code == "corrupt_image"
    assert "\n" not in message
    assert len(message) <= 500


def test_outcomes_come_back_in_order_with_their_labels() -> None:
    lines = b"\n".join([encode_success([1, 0], [0.75, 0.25]), encode_failure(CorruptImageError("x"))])
    first, second = decode_outcomes(lines)
    assert label_objects(first, ["cat", "dog"]) == [
        {"label": "dog", "index": 1, "score": 0.75},
        {"label": "cat", "index": 0, "score": 0.25},
    ]
    assert second == ["corrupt_image", "x"]


def test_a_result_line_has_no_key_without_a_value() -> None:
    line = Result("a", "failed", error={"code": "not_found", "message": "gone"}).as_dict()
    assert line == {"custom_id": "a", "status": "failed", "error": {"code": "not_found", "message": "gone"}}


def test_a_line_with_an_index_and_no_score_is_refused() -> None:
    with pytest.raises(ValueError, match="no score"):
        label_objects([0, 5000, 1], ["a", "b"])
