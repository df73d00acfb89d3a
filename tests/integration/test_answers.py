"""Answers in the result backend: stored in one command, and never a failure in place of a success."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import pytest
from celery import states
from celery.app.backends import BACKEND_ALIASES, by_url
from celery.backends.asynchronous import Drainer
from celery.backends.redis import RedisBackend
from celery.backends.redis import ResultConsumer as CelerysConsumer
from celery.result import AsyncResult, GroupResult, ResultSet

from jobs.answers import Backend, BehindSentinels, install
from producer.client import Labelmill
from tests.support.servers import RedisServer, eventually


def backend_of(redis: RedisServer) -> Any:
    return Labelmill(redis.broker_url).celery.backend


def test_redis_means_our_backend_in_every_app(redis: RedisServer) -> None:
    assert type(backend_of(redis)) is Backend
    assert by_url("redis+socket:///tmp/a.sock")[0] is Backend
    assert by_url("sentinel://127.0.0.1:1")[0] is BehindSentinels
    BACKEND_ALIASES["redis"] = f"{RedisBackend.__module__}:{RedisBackend.__name__}"
    install()
    assert by_url("redis://127.0.0.1:1")[0] is Backend


def test_a_success_is_stored_by_one_command_and_told_to_who_waits(redis: RedisServer) -> None:
    backend = backend_of(redis)
    backend.store_result("warm", 1, states.SUCCESS)  # Redis knows the script from now on
    before = calls_of(redis)
    told = threading.Event()
    with redis.client.pubsub() as listener:
        listener.subscribe(**{"celery-task-meta-one": lambda message: told.set()})
        thread = listener.run_in_thread(daemon=True)
        try:
            backend.store_result("one", {"labels": ["cat"]}, states.SUCCESS)
            assert told.wait(10)
        finally:
            thread.stop()
            thread.join()
    after = calls_of(redis)
    assert after["evalsha"] - before["evalsha"] == 1
    assert {name for name in ("get", "multi", "exec") if after.get(name) != before.get(name)} == set()
    meta = backend.get_task_meta("one")
    assert (meta["status"], meta["result"], meta["task_id"]) == (states.SUCCESS, {"labels": ["cat"]}, "one")
    assert 0 < redis.client.ttl("celery-task-meta-one") <= 3600


def test_without_an_end_an_answer_is_kept(redis: RedisServer) -> None:
    backend = backend_of(redis)
    backend.expires = None
    backend.store_result("one", 1, states.SUCCESS)
    assert redis.client.ttl("celery-task-meta-one") == -1


def test_a_late_failure_does_not_replace_a_success_but_a_success_replaces_anything(redis: RedisServer) -> None:
    backend = backend_of(redis)
    backend.store_result("one", ValueError("at first"), states.FAILURE)
    assert backend.get_task_meta("one")["status"] == states.FAILURE
    backend.store_result("one", 1, states.SUCCESS)
    backend.store_result("one", ValueError("late"), states.FAILURE)
    assert backend.get_state("one") == states.SUCCESS
    assert backend.get_result("one") == 1


def test_sending_subscribes_to_nothing_and_waiting_to_what_it_waits_for(redis: RedisServer) -> None:
    app = Labelmill(redis.broker_url).celery
    sent = [app.send_task("labelmill.classify", (f"{number}.jpg",)) for number in range(3)]
    assert "subscribe" not in calls_of(redis)
    with answering(redis, sent[1].id, 7, once_subscribed=1):
        assert sent[1].get(timeout=30) == 7
    assert calls_of(redis)["subscribe"] == 1


def test_a_greenlet_that_reads_all_answers_has_subscribed_before_the_call_is_sent(
    redis: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    class OfGreenlets(Drainer):  # type: ignore[misc]
        """Stands for those of gevent and eventlet, which are not installed."""

    app = Labelmill(redis.broker_url).celery
    monkeypatch.setattr(app.backend.result_consumer, "drainer", OfGreenlets(app.backend.result_consumer))
    app.send_task("labelmill.classify", ("1.jpg",))
    assert calls_of(redis)["subscribe"] == 1


@pytest.mark.parametrize(("environment", "sleeps"), [("default", 0), ("gevent", 1)])
def test_who_waits_sleeps_for_no_time_only_where_greenlets_wait_for_that(
    redis: RedisServer, monkeypatch: pytest.MonkeyPatch, environment: str, sleeps: int
) -> None:
    slept: list[float] = []
    monkeypatch.setattr("jobs.answers.detect_environment", lambda: environment)
    app = Labelmill(redis.broker_url).celery
    sent = app.send_task("labelmill.classify", ("1.jpg",))
    app.backend.store_result(sent.id, 7, states.SUCCESS)
    monkeypatch.setattr("jobs.answers.time.sleep", slept.append)
    assert sent.get(timeout=30) == 7
    assert slept == [0] * sleeps


@pytest.mark.parametrize("is_there", [True, False])
def test_an_answer_is_had_whether_it_is_there_before_somebody_waits_or_not(redis: RedisServer, is_there: bool) -> None:
    app = Labelmill(redis.broker_url).celery
    sent = app.send_task("labelmill.classify", ("1.jpg",))
    with answering(redis, sent.id, 7, once_subscribed=0 if is_there else 1):
        assert sent.get(timeout=30) == 7
        assert AsyncResult(sent.id, app=app).get(timeout=30) == 7


@pytest.mark.parametrize("join", ["get", "join", "join_native"])
def test_a_group_has_all_its_answers_those_that_are_there_and_those_that_come(redis: RedisServer, join: str) -> None:
    app = Labelmill(redis.broker_url).celery
    sent = [app.send_task("labelmill.classify", (f"{number}.jpg",)) for number in range(20)]
    backend = backend_of(redis)
    backend.store_result(sent[3].id, 3, states.SUCCESS)
    results = GroupResult("a-group", sent, app=app) if join != "join" else ResultSet(sent, app=app)
    with ThreadPoolExecutor(1) as pool:  # the answers, as Celery's backends belong to the thread that made a group
        rest = [number for number in range(20) if number != 3]
        stored = pool.map(lambda number: backend.store_result(sent[number].id, number, states.SUCCESS), rest)
        found = getattr(results, join)(timeout=60)
        assert len(list(stored)) == 19
    assert found == list(range(20))


def test_threads_of_one_client_wait_each_for_its_own(redis: RedisServer) -> None:
    app = Labelmill(redis.broker_url).celery
    sent = [app.send_task("labelmill.classify", (f"{number}.jpg",)) for number in range(8)]
    with ThreadPoolExecutor(len(sent)) as pool:
        found = [pool.submit(result.get, timeout=60) for result in sent]
        for number, result in enumerate(sent):
            backend_of(redis).store_result(result.id, number, states.SUCCESS)
        assert [one.result(60) for one in found] == list(range(8))


def test_an_answer_that_nobody_was_told_of_is_found_all_the_same(redis: RedisServer) -> None:
    app = Labelmill(redis.broker_url).celery
    sent = app.send_task("labelmill.classify", ("1.jpg",))
    looked: list[int] = []

    def untold() -> None:
        if not looked:  # behind the first look, and not published
            redis.client.set(f"celery-task-meta-{sent.id}", app.backend.encode(meta_of(sent.id, 7)))
        looked.append(1)

    told: list[Any] = []
    assert sent.get(timeout=60, on_interval=untold, on_message=told.append) == 7
    assert told == []


def test_a_look_at_a_group_does_not_sleep(redis: RedisServer, monkeypatch: pytest.MonkeyPatch) -> None:
    app = Labelmill(redis.broker_url).celery
    sent = [app.send_task("labelmill.classify", (f"{number}.jpg",)) for number in range(2)]
    slept: list[float] = []
    monkeypatch.setattr("celery.backends.base.time.sleep", slept.append)
    group = GroupResult("group", sent, app=app)
    app.backend.result_consumer.on_wait_for_pending(group, timeout=None, interval=0.5)
    group.forget()
    assert set(slept) == {0}


def test_who_waits_looks_after_a_second_and_then_after_twice_as_long_again_and_again(
    redis: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    consumer = Labelmill(redis.broker_url).celery.backend.result_consumer
    now, looks, told = 100.0, [], []

    def waiting(self: Any, result: Any, *, on_interval: Any, timeout: float | None) -> Iterator[None]:
        nonlocal now
        consumer.on_message = told.append
        while now < 120:
            yield
            now += 0.25
            on_interval()

    def look(result: Any, **options: Any) -> None:
        assert consumer.on_message is None  # what is found by looking is not told twice
        looks.append((now - 100, result))

    monkeypatch.setattr(CelerysConsumer, "_wait_for_pending", waiting)
    monkeypatch.setattr(consumer, "on_wait_for_pending", look)
    monkeypatch.setattr("jobs.answers.time.monotonic", lambda: now)
    intervals: list[int] = []
    for _ in consumer._wait_for_pending("result", on_interval=lambda: intervals.append(1)):
        assert consumer.on_message == told.append
    assert looks == [(1, "result"), (3, "result"), (7, "result"), (15, "result")]
    assert len(intervals) == 80


def meta_of(task_id: str, result: Any) -> dict[str, Any]:
    return {"task_id": task_id, "status": states.SUCCESS, "result": result, "traceback": None, "children": []}


@contextmanager
def answering(redis: RedisServer, task_id: str, result: Any, *, once_subscribed: int) -> Iterator[None]:
    """Meanwhile a call is answered: as soon as so many answers are waited for, or before, where that is none."""

    def answer() -> None:
        eventually(lambda: len(redis.client.pubsub_channels("celery-task-meta-*")) >= once_subscribed)
        backend_of(redis).store_result(task_id, result, states.SUCCESS)

    thread = threading.Thread(target=answer)
    thread.start()
    if not once_subscribed:
        thread.join()
    yield
    thread.join()


def calls_of(redis: RedisServer) -> dict[str, int]:
    """How often each command was called, as Redis says."""
    stats: Any = redis.client.info("commandstats")
    return {name.removeprefix("cmdstat_"): entry["calls"] for name, entry in stats.items()}
