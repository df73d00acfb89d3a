"""Answers that are written all at once look as if Celery had written each of them."""

from __future__ import annotations

from typing import Any

import pytest
from celery import Celery, signals, states
from celery.app.task import Context

from tests.support.servers import RedisServer, eventually
from worker.calls import Call
from worker.letters import Letter
from worker.postbox import Sealed
from worker.replies import Replies

ANSWER = {"custom_id": "ä.jpg", "status": "succeeded", "labels": [{"label": "cat", "index": 3, "score": 0.9987}]}


@pytest.fixture
def app(redis: RedisServer) -> Celery:
    app = Celery("answers", broker=redis.broker_url, backend=redis.broker_url, set_as_current=False)
    app.conf.result_expires = 1234
    app.task(name="labelmill.classify")(classify)
    return app


def classify(image: str) -> None:
    """Stands for the task."""


def letter(task_id: str, **headers: Any) -> Letter:
    headers = {"id": task_id, "task": "labelmill.classify", "argsrepr": "('ä.jpg',)", **headers}
    return Letter(Sealed(0, headers, {}, b""), Call("ä.jpg"), ("ä.jpg",), {}, is_plain=True)


# Celery's own way of storing a result
@pytest.mark.filterwarnings("ignore:Call to deprecated setex:DeprecationWarning")
@pytest.mark.parametrize("extended", [False, True])
@pytest.mark.parametrize("headers", [{}, {"group": "a-group", "parent_id": "a-parent"}])
def test_an_answer_has_what_celery_would_have_stored(app: Celery, headers: dict[str, str], extended: bool) -> None:
    app.conf.result_extended = extended
    backend, ours = app.backend, letter("ours", **headers)
    request = Context({**ours.sealed.headers, "id": "theirs", "args": ours.args, "kwargs": {}})
    backend.store_result("theirs", ANSWER, states.SUCCESS, request=request)
    Replies(app).write_all([ours], [ANSWER])
    stored, expected = (backend.decode(backend.get(backend.get_key_for_task(name))) for name in ("ours", "theirs"))
    assert stored.pop("date_done")[:10] == expected.pop("date_done")[:10]
    assert stored == {**expected, "task_id": "ours"}
    assert app.AsyncResult("ours").get(timeout=10) == ANSWER
    assert 1000 < backend.client.ttl(backend.get_key_for_task("ours")) <= 1234


def test_who_waits_for_an_answer_is_told(app: Celery, redis: RedisServer) -> None:
    with redis.client.pubsub(ignore_subscribe_messages=True) as waiting:
        waiting.psubscribe("celery-task-meta-*")
        Replies(app).write_all([letter(str(number)) for number in range(3)], [ANSWER] * 3)
        eventually(lambda: (told := waiting.get_message()) and told["channel"].endswith(b"-2"))
    assert [app.AsyncResult(str(number)).get(timeout=10) for number in range(3)] == [ANSWER] * 3


def test_signals_that_somebody_listens_to_need_celerys_trace(app: Celery) -> None:
    replies = Replies(app)

    def listen(**_: Any) -> None:
        """Hears of every task."""

    assert not replies.are_watched()
    signals.task_success.connect(listen)
    try:
        assert replies.are_watched()
    finally:
        signals.task_success.disconnect(listen)
    assert not replies.are_watched()
