"""Calls that are taken along with another lose nothing by it: not their wishes, not their errors, not themselves.

The worker has one process. A call whose image is a gate keeps it busy, so that what is sent meanwhile must be taken
along by the next one.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from celery.exceptions import TaskRevokedError
from celery.result import AsyncResult

from producer.client import Labelmill
from tests.support.images import POISON_APP
from tests.support.servers import RedisServer, WorkerProcess, eventually, redis_server, worker_process

QUEUE = "noop.interactive"
CALLS = 60
#: Less than the visibility timeout: what comes back sooner was put back by somebody who knew.
SOON_S = 40


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("images")
    (folder / "good.jpg").write_text("GOOD\n")
    return folder


@pytest.fixture(scope="module")
def server() -> Iterator[RedisServer]:
    with redis_server() as server:
        yield server


@pytest.fixture(scope="module")
def worker(server: RedisServer, folder: Path) -> Iterator[WorkerProcess]:
    with start_worker(server, folder) as worker:
        yield worker


def start_worker(
    server: RedisServer, folder: Path, env: Mapping[str, str] | None = None
) -> AbstractContextManager[WorkerProcess]:
    options = {"LABELMILL_INTERACTIVE_BATCH": "100", **(env or {})}
    return worker_process(server, app=POISON_APP, concurrency=1, file_roots=[folder], env=options)


class Desk:
    """Sends calls of ``noop``."""

    def __init__(self, server: RedisServer, folder: Path) -> None:
        self.celery = Labelmill(settings=server.settings).celery
        self.redis = server.client
        self.folder = folder

    def call(self, image: str = "good.jpg", **options: Any) -> AsyncResult:
        kwargs = options.pop("kwargs", {})
        return self.celery.send_task(
            "labelmill.classify", (image,), {"model": "noop", **kwargs}, queue=QUEUE, **options
        )

    def close_gate(self, name: str) -> tuple[AsyncResult, Callable[[], None]]:
        """A call whose image keeps its process, and what lets it go on."""
        gate = self.folder / name
        (self.folder / f"{name}.jpg").write_text(f"WAIT {gate}\n")
        result = self.call(f"{name}.jpg")
        return result, gate.touch

    def wait_at(self, name: str) -> None:
        """Until a process has come to the gate."""
        begun = self.folder / f"{name}.begun"
        eventually(begun.exists, what=f"a process at {name}")

    def held(self) -> int:
        """Calls that workers have and have not acknowledged."""
        return int(self.redis.hlen("unacked"))


@pytest.fixture
def desk(server: RedisServer, worker: WorkerProcess, folder: Path) -> Desk:
    return Desk(server, folder)


def succeeded(result: AsyncResult, timeout_s: float = 60) -> bool:
    return bool(result.get(timeout=timeout_s)["status"] == "succeeded")


def test_revoked_and_expired_calls_are_not_run(desk: Desk) -> None:
    first, go_on = desk.close_gate("revoking")
    desk.wait_at("revoking")
    past, future = (datetime.now(UTC) + timedelta(hours=hours) for hours in (-1, 1))
    good = [desk.call() for _ in range(CALLS)]
    revoked = [desk.call() for _ in range(3)]
    expired = [desk.call(expires=past) for _ in range(3)]
    good += [desk.call(expires=future) for _ in range(3)]
    assert desk.celery.control.revoke([one.id for one in revoked], reply=True, timeout=60, limit=1)
    go_on()
    assert succeeded(first)
    assert all(map(succeeded, good))
    for result in revoked + expired:
        with pytest.raises(TaskRevokedError):
            result.get(timeout=60)


def test_wrong_arguments_and_bad_images_fail_alone(desk: Desk) -> None:
    first, go_on = desk.close_gate("wrong")
    desk.wait_at("wrong")
    calls: dict[str, list[AsyncResult]] = {"good": [], "bad": [], "argument": [], "model": [], "type": []}
    for _ in range(10):
        calls["good"].append(desk.call())
        calls["bad"].append(desk.call("missing.jpg"))
        calls["argument"].append(desk.call(kwargs={"colour": "red"}))
        calls["model"].append(desk.call(kwargs={"model": "absent"}))
        calls["type"].append(desk.call(kwargs={"top_k": "many"}))
    go_on()
    assert succeeded(first)
    assert all(map(succeeded, calls["good"]))
    assert {one.get(timeout=60)["error"]["code"] for one in calls["bad"]} == {"not_found"}
    assert {one.get(timeout=60)["error"]["code"] for one in calls["type"]} == {"invalid_item"}
    for kind, text in (("argument", "colour"), ("model", "absent")):
        for one in calls[kind]:
            assert text in str(one.get(timeout=60, propagate=False))
            assert one.state == "FAILURE"


def take_along(desk: Desk, name: str) -> tuple[AsyncResult, list[AsyncResult], Callable[[], None]]:
    """A process that is busy with a call, and others that it has taken along."""
    before, go_on = desk.close_gate(f"{name}-before")
    desk.wait_at(f"{name}-before")
    own, let_go = desk.close_gate(name)
    others = [desk.call() for _ in range(CALLS)]
    go_on()
    assert succeeded(before)
    desk.wait_at(name)
    assert desk.held() > 1, "no call was taken along"
    return own, others, let_go


def test_calls_are_settled_when_they_are_answered(desk: Desk) -> None:
    own, others, go_on = take_along(desk, "settled")
    go_on()
    assert succeeded(own)
    assert all(map(succeeded, others))
    eventually(lambda: desk.held() == desk.redis.zcard("unacked_index") == 0, what="nothing held")


def test_what_a_killed_process_had_taken_along_is_answered_at_once(desk: Desk, worker: WorkerProcess) -> None:
    _, others, _ = take_along(desk, "killed")
    for pid in worker.pids():
        if pid != worker.pid:
            os.kill(pid, signal.SIGKILL)
    assert all(map(partial(succeeded, timeout_s=SOON_S), others))


def test_an_image_that_ends_its_process_costs_none_of_those_beside_it(desk: Desk, folder: Path) -> None:
    before, go_on = desk.close_gate("poison")
    desk.wait_at("poison")
    (folder / "poison-pill.jpg").write_text("EXIT\n")
    own = desk.call()
    pill, *others = [desk.call("poison-pill.jpg"), *(desk.call() for _ in range(CALLS))]
    go_on()
    assert succeeded(before)
    assert all(map(partial(succeeded, timeout_s=SOON_S), others))
    assert "WorkerLostError" in repr(pill.get(timeout=SOON_S, propagate=False))
    assert own.get(timeout=SOON_S, propagate=False)


def test_a_later_call_waits_for_its_time(desk: Desk) -> None:
    first, go_on = desk.close_gate("later")
    desk.wait_at("later")
    later = desk.call(countdown=3600)
    good = [desk.call() for _ in range(CALLS)]
    go_on()
    assert succeeded(first)
    assert all(map(succeeded, good))
    assert later.state == "PENDING"
    desk.celery.control.revoke(later.id)


def test_a_killed_worker_loses_no_call(tmp_path: Path) -> None:
    (tmp_path / "good.jpg").write_text("GOOD\n")
    env = {"POISON_VISIBILITY_S": "2"}
    with redis_server() as server:
        desk = Desk(server, tmp_path)
        with start_worker(server, tmp_path, env) as first:
            own, others, go_on = take_along(desk, "lost")
            first.kill9()
        go_on()
        with start_worker(server, tmp_path, env):
            assert succeeded(own)
            assert all(map(succeeded, others))
