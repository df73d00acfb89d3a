"""Which messages may be taken along with a call, and which are left to Celery's consumer."""

from __future__ import annotations

import base64
import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from worker.letters import Letter, read
from worker.postbox import Sealed

MODELS = ("cats", "dogs")
NO_CANVAS = {"callbacks": None, "errbacks": None, "chain": None, "chord": None}


def sealed(*, body: Any = None, form: str = "application/json", **headers: Any) -> Sealed:
    known = {
        "lang": "py",
        "task": "labelmill.classify",
        "id": "an-id",
        "eta": None,
        "expires": None,
        "group": None,
        "retries": 0,
        "timelimit": [None, None],
        "stamped_headers": None,
        "stamps": {},
        "ignore_result": None,
    }
    body = json.dumps(body or [["a.jpg"], {"model": "cats"}, NO_CANVAS]).encode()
    return Sealed(0, {**known, **headers}, {"reply_to": "me"}, body, form)


def opened(message: Sealed | None) -> Letter | None:
    return read(message, MODELS, is_revoked=lambda task_id: task_id == "revoked")


def at(hours: float) -> str:
    return (datetime.now(UTC) + timedelta(hours=hours)).isoformat()


def with_canvas(**canvas: Any) -> list[Any]:
    return [["a.jpg"], {}, {**NO_CANVAS, **canvas}]


@pytest.mark.parametrize(
    "message",
    [
        sealed(),
        sealed(expires=at(1)),
        sealed(group="a-group", group_index=3),
        sealed(body=[["a.jpg"], {}, NO_CANVAS]),
        sealed(body=[["a.jpg", "dogs", 3], {}, NO_CANVAS]),
    ],
)
def test_a_plain_call_is_taken_along(message: Sealed) -> None:
    letter = opened(message)
    assert letter is not None
    assert letter.is_plain
    assert letter.call.image == "a.jpg"
    assert letter.request()["reply_to"] == "me"


@pytest.mark.parametrize("name", NO_CANVAS)
def test_a_call_that_others_wait_for_is_taken_along_but_is_not_plain(name: str) -> None:
    letter = opened(sealed(body=with_canvas(**{name: [{"task": "another"}]})))
    assert letter is not None
    assert not letter.is_plain


@pytest.mark.parametrize(
    "message",
    [
        None,
        sealed(task="labelmill.ticket"),
        sealed(id="revoked"),
        sealed(id=None),
        sealed(eta=at(1)),
        sealed(expires=at(-1)),
        sealed(expires="2030-01-01T00:00:00"),
        sealed(expires="soon"),
        sealed(retries=1),
        sealed(redelivered=True),
        sealed(timelimit=[5, None]),
        sealed(timelimit=5),
        sealed(stamps={"team": "a"}),
        sealed(ignore_result=True),
        sealed(compression="gzip"),
        sealed(form="application/x-python-serialize"),
        sealed(body=[["a.jpg"], {"model": "birds"}, NO_CANVAS]),
        sealed(body=[["a.jpg"], {"colour": "red"}, NO_CANVAS]),
        sealed(body=[[], {}, NO_CANVAS]),
        sealed(body=["a.jpg"]),
        sealed(body={"image": "a.jpg"}),
        sealed(body=[["a.jpg"], {}, None]),
    ],
)
def test_all_else_is_left_to_celery(message: Sealed | None) -> None:
    assert opened(message) is None


def test_a_message_of_kombu_is_read_as_it_was_sent() -> None:
    body = base64.b64encode(b'[["a.jpg"], {}, {}]').decode()
    properties = {"body_encoding": "base64", "delivery_tag": "t", "delivery_info": {"routing_key": "q"}}
    payload = {"body": body, "headers": {"id": "x"}, "properties": properties}
    form = {"content-type": "application/json", "content-encoding": "utf-8"}
    message = Sealed.of_payload(7, json.dumps(payload | form).encode())
    assert message == Sealed(7, {"id": "x"}, properties, b'[["a.jpg"], {}, {}]')


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"no JSON",
        b"[]",
        b"{}",
        b'{"body": 3, "properties": {}, "headers": {}}',
        b'{"body": "", "properties": {}, "headers": [1], "content-type": "", "content-encoding": ""}',
        b'{"body": "", "properties": {}, "headers": null, "content-type": "", "content-encoding": ""}',
        b'{"body": "", "properties": [], "headers": {}, "content-type": "", "content-encoding": ""}',
    ],
)
def test_what_is_no_message_of_kombu_is_not_read(raw: bytes) -> None:
    assert Sealed.of_payload(0, raw) is None
