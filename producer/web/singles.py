"""Single calls: one image through the interactive lane, and its answer.

The image travels inside the Celery message, in base64. Ids of calls begin with a mark of this process, and one
subscription to all answers under that mark serves every thread that waits: no polling, and nothing to undo.
"""

from __future__ import annotations

import base64
import logging
import re
import secrets
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import Any, cast

import orjson
import redis
from celery import Celery
from kombu.exceptions import OperationalError
from redis.exceptions import RedisError

from jobs import lanes
from jobs.errors import BrokerUnavailableError
from jobs.patience import GONE
from jobs.settings import Settings
from jobs.tickets import Bell

__all__ = ["Answer", "Singles", "new_task_id"]

log = logging.getLogger(__name__)

TASK = "labelmill.classify"
#: How Celery names the key, and the channel, of an answer.
_META = "celery-task-meta-"
#: Seconds for which a call and its answer can be asked for; the answers' own is in celeryconfig.py.
KEPT_S = 3600
#: Seconds after which a waiting thread looks for itself, should the subscription have missed an answer.
LOOK_S = 1.0
#: Seconds for which a queue is taken to be as long as it was.
BACKLOG_S = 0.25

_ID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")


@dataclass(frozen=True)
class Answer:
    """A call: ``state`` is queued, succeeded or failed; ``result`` is a result line; ``error`` is {code, message}."""

    id: str
    state: str
    result: dict[str, Any] | None = None
    error: dict[str, str] | None = None

    def as_dict(self) -> dict[str, Any]:
        """The form in which it is shown: no key without a value."""
        shown: dict[str, Any] = {"id": self.id, "state": self.state}
        for key in ("result", "error"):
            if getattr(self, key) is not None:
                shown[key] = getattr(self, key)
        return shown


class Singles:
    """Sends single calls and waits for their answers. Safe for threads; its own thread starts with the first wait."""

    def __init__(self, settings: Settings, client: redis.Redis) -> None:
        self.settings = settings
        self.redis = client
        self.mark = secrets.token_hex(4)
        self._waiting: dict[str, _Waiter] = {}
        self._lock = threading.Lock()
        self._listener: threading.Thread | None = None
        self._listening = threading.Event()
        self._depth: dict[str, tuple[float, int]] = {}

    @cached_property
    def app(self) -> Celery:
        """An application that sends and reads no answers: reading them is done here."""
        app = Celery("labelmill-gateway", set_as_current=False)
        app.config_from_object("celeryconfig")
        app.conf.update(broker_url=self.settings.broker_url, result_backend="disabled://")
        return app

    @cached_property
    def bell(self) -> Bell:
        """Counts what waits on a queue."""
        return Bell(self.app)

    def backlog(self, model: str) -> int:
        """How many calls wait in the model's queue, as of :data:`BACKLOG_S` ago at the most."""
        known = self._depth.get(model)
        if known is None or time.monotonic() - known[0] > BACKLOG_S:
            known = self._depth[model] = (time.monotonic(), self.bell.waiting(lanes.interactive(model)))
        return known[1]

    def classify(self, name: str, data: bytes, *, model: str, top_k: int, timeout_s: float) -> Answer:
        """Send one image and wait for its answer; ``state`` is queued where none came in time."""
        with self.expect() as waiter:
            self.send(waiter.id, name, data, model=model, top_k=top_k)
            return waiter.wait(timeout_s)

    @contextmanager
    def expect(self) -> Iterator[_Waiter]:
        """A new call's id, and the wait for its answer."""
        self._listen()
        waiter = _Waiter(new_task_id(self.mark), self.find)
        with self._lock:
            self._waiting[waiter.id] = waiter
        try:
            yield waiter
        finally:
            with self._lock:
                del self._waiting[waiter.id]

    def send(self, task_id: str, name: str, data: bytes, *, model: str, top_k: int) -> None:
        """Publish a call; ``name`` is what the image is called."""
        self.redis.set(self._key(task_id), orjson.dumps({"image": name, "model": model}), ex=KEPT_S)
        arguments = {"model": model, "top_k": top_k, "data": base64.b64encode(data).decode()}
        options: dict[str, Any] = {"task_id": task_id, "queue": lanes.interactive(model), "expires": KEPT_S}
        try:
            self.app.send_task(TASK, (name,), arguments, retry=False, **options)
        except (OperationalError, RedisError, ConnectionError) as exc:
            raise BrokerUnavailableError(f"the broker does not answer: {exc}") from exc

    def find(self, task_id: str) -> Answer | None:
        """A call by its id; None where there was none, or it was too long ago."""
        if not _ID.fullmatch(task_id):
            return None
        sent, meta = cast("list[bytes | None]", self.redis.mget(self._key(task_id), _META + task_id))
        if meta is not None:
            return _answer(task_id, meta)
        return Answer(task_id, "queued") if sent is not None else None

    def _key(self, task_id: str) -> str:
        return f"{self.settings.key_prefix}task:{task_id}"

    def _listen(self) -> None:
        with self._lock:
            if self._listener is None:
                self._listener = threading.Thread(target=self._hear, name="answers", daemon=True)
                self._listener.start()
        self._listening.wait(LOOK_S)

    def _hear(self) -> None:
        while True:
            try:
                self._hear_until_it_breaks()
            except GONE as exc:
                self._listening.clear()
                log.warning("lost the subscription to answers (%s): again in a second", type(exc).__name__)
                time.sleep(LOOK_S)

    def _hear_until_it_breaks(self) -> None:
        with self.redis.pubsub() as subscription:  # type: ignore[no-untyped-call]
            subscription.psubscribe(f"{_META}{self.mark}-*")
            while True:
                message = subscription.get_message(timeout=LOOK_S)
                if message is None:
                    continue
                if message["type"] == "psubscribe":
                    self._listening.set()
                elif message["type"] == "pmessage":
                    self._deliver(message["channel"].decode().removeprefix(_META), message["data"])

    def _deliver(self, task_id: str, meta: bytes) -> None:
        with self._lock:
            waiter = self._waiting.get(task_id)
        if waiter:
            waiter.deliver(_answer(task_id, meta))


class _Waiter:
    """One thread that waits for one answer."""

    def __init__(self, task_id: str, find: Callable[[str], Answer | None]) -> None:
        self.id = task_id
        self._find = find
        self._answer: Answer | None = None
        self._came = threading.Event()

    def deliver(self, answer: Answer) -> None:
        """The answer has come."""
        self._answer = answer
        self._came.set()

    def wait(self, timeout_s: float) -> Answer:
        """The answer, or the call as it stands after ``timeout_s``."""
        deadline = time.monotonic() + timeout_s
        while not self._came.wait(max(0.0, min(LOOK_S, deadline - time.monotonic()))):
            found = self._find(self.id)
            if found and found.state != "queued":
                return found
            if time.monotonic() >= deadline:
                return Answer(self.id, "queued")
        return cast("Answer", self._answer)


def new_task_id(mark: str) -> str:
    """A fresh id in the form of a UUID that begins with ``mark`` (8 hexadecimal digits); 96 bits of it are random."""
    digits = secrets.token_hex(12)
    return f"{mark}-{digits[:4]}-{digits[4:8]}-{digits[8:12]}-{digits[12:]}"


#: What Celery calls a failure of the worker, and what we call it.
_FAILURES = {
    "ModelNotServedError": ("model_not_served", "No worker serves this model."),
    "TimeLimitExceeded": ("time_limit", "This image took longer than the time limit."),
    "WorkerLostError": ("crashed_worker", "This image ended its worker."),
    "TaskRevokedError": ("expired", "This call waited too long."),
}


def _answer(task_id: str, meta: bytes) -> Answer:
    known = orjson.loads(meta)
    if known["status"] == "SUCCESS":
        result = known["result"]
        return Answer(task_id, result["status"], result=result)
    if known["status"] in ("FAILURE", "REVOKED"):
        kind = (known.get("result") or {}).get("exc_type", "")
        code, message = _FAILURES.get(kind, ("model_error", "The model failed on this image."))
        return Answer(task_id, "failed", error={"code": code, "message": message})
    return Answer(task_id, "queued")
