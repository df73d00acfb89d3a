"""Answers in the result backend: stored in one command, and never a failure in place of a success."""

from __future__ import annotations

import threading
from typing import Any

from celery import states
from celery.app.backends import BACKEND_ALIASES, by_url
from celery.backends.redis import RedisBackend

from jobs.answers import Backend, BehindSentinels, install
from producer.client import Labelmill
from tests.support.servers import RedisServer


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


def calls_of(redis: RedisServer) -> dict[str, int]:
    """How often each command was called, as Redis says."""
    stats: Any = redis.client.info("commandstats")
    return {name.removeprefix("cmdstat_"): entry["calls"] for name, entry in stats.items()}
