"""What somebody with access to Redis could send: a worker runs none of it, reads nothing it may not, and serves on."""

from __future__ import annotations

import base64
import json
import math
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from celery import Celery
from PIL import Image

from jobs.items import Item, decode_outcomes, encode_chunk
from jobs.ledger import JobRequest
from jobs.tickets import TICKET_TASK
from producer.client import Labelmill
from tests.support.servers import RedisServer, WorkerProcess, eventually, worker_process
from worker.export.prepare import prepare

MODEL = "efficientnet-lite0"
BULK, SINGLE = f"{MODEL}.bulk", f"{MODEL}.interactive"
MAX_BYTES = 100_000


class Payload:
    """Makes a file when it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> object:
        return os.mkdir, (str(self.mark),)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """The only folder that the worker may read."""
    (tmp_path / "root").mkdir()
    return tmp_path / "root"


@pytest.fixture
def worker(redis: RedisServer, root: Path) -> Iterator[WorkerProcess]:
    env = {"LABELMILL_MAX_BYTES": str(MAX_BYTES), "LABELMILL_URL_HOSTS": "*.example.org"}
    model = str(prepare(MODEL))
    with worker_process(redis, model=model, concurrency=1, file_roots=[root], env=env) as process:
        yield process


def ends(redis: RedisServer, items: list[Item]) -> list[str]:
    """The error codes of a job's items, written into the ledger by hand, past every check of a producer's."""
    redis.ledger.create("hostile", JobRequest(MODEL))
    redis.ledger.submit("hostile", 0, encode_chunk(items))
    redis.ledger.seal("hostile")
    eventually(lambda: redis.ledger.status("hostile").ended)
    (entry,) = redis.ledger.entries("hostile")
    return [outcome[0] if isinstance(outcome[0], str) else "succeeded" for outcome in decode_outcomes(entry.results)]


def test_each_hostile_item_ends_with_its_code_beside_a_good_one(
    redis: RedisServer, worker: WorkerProcess, root: Path
) -> None:
    secret = root.parent / "secret.png"
    Image.new("RGB", (8, 8)).save(secret)
    Image.new("RGB", (8, 8)).save(root / "good.png")
    (root / "link.png").symlink_to(secret)
    (root / "long.png").write_bytes(bytes(MAX_BYTES + 1))
    Image.new("1", (12_000, 12_000)).save(root / "bomb.png")
    expected = {
        "/etc/passwd": "forbidden",
        f"{root}/../secret.png": "forbidden",
        str(root / "link.png"): "forbidden",
        "http://127.0.0.1/x.png": "forbidden",
        "http://169.254.169.254/latest/meta-data": "forbidden",
        "http://[::1]/x.png": "forbidden",
        "http://user:pass@photos.example.org/x.png": "invalid_item",
        "file:///etc/passwd": "forbidden",
        str(root / "long.png"): "too_large",
        str(root / "bomb.png"): "too_large",
        f"{root}/a\x1b[31m.png": "invalid_item",
        f"{root}/a\0.png": "invalid_item",
        str(root / "good.png"): "succeeded",
    }
    assert (root / "bomb.png").stat().st_size < MAX_BYTES
    items = [Item(f"item-{number}", ref) for number, ref in enumerate(expected)]
    assert dict(zip(expected, ends(redis, items), strict=True)) == expected
    assert redis.ledger.audit("hostile").problems == ()


@pytest.mark.parametrize("serializer", ["pickle", "yaml"])
def test_a_message_that_is_no_json_is_refused_and_the_worker_serves_on(
    redis: RedisServer, worker: WorkerProcess, root: Path, serializer: str
) -> None:
    mark = root / "code-ran"
    arguments = [Payload(mark)] if serializer == "pickle" else ["x"]
    sender = Celery("hostile", broker=redis.broker_url, task_serializer=serializer)
    for task, queue in ((TICKET_TASK, BULK), ("labelmill.classify", SINGLE)):
        sender.send_task(task, arguments, queue=queue, serializer=serializer)
    eventually(lambda: worker.log().count(f"untrusted content of type {serializer}") >= 2)
    Image.new("RGB", (8, 8)).save(root / "good.png")
    assert ends(redis, [Item("good", str(root / "good.png"))]) == ["succeeded"]
    assert not mark.exists()
    assert redis.client.hlen("unacked") == 0


_PROPERTIES: dict[str, Any] = {
    "body_encoding": "base64",
    "delivery_tag": "tag",
    "delivery_info": {"exchange": "", "routing_key": SINGLE},
}
_HEADERS: dict[str, Any] = {"task": "labelmill.classify", "id": "odd"}


def body(arguments: object) -> str:
    return base64.b64encode(json.dumps(arguments).encode()).decode()


def message(**odd: object) -> bytes:
    """One call as kombu writes it, but for what is odd."""
    sound = {
        "body": body([["nowhere.png"], {}, {}]),
        "content-type": "application/json",
        "content-encoding": "utf-8",
        "headers": _HEADERS,
        "properties": _PROPERTIES,
    }
    return json.dumps({**sound, **{name.replace("_", "-"): value for name, value in odd.items()}}).encode()


ODD = {
    "nothing": b"",
    "no text": b"\xff\xfe{",
    "a number": b"1",
    "a list": b"[1]",
    "headers: a list": message(headers=[1]),
    "headers: text": message(headers="x"),
    "no id": message(headers={"task": "labelmill.classify"}),
    "id: a list": message(headers={**_HEADERS, "id": [1]}),
    "task: a list": message(headers={**_HEADERS, "task": [1]}),
    "time limit: text": message(headers={**_HEADERS, "timelimit": "x"}),
    "time limit: texts": message(headers={**_HEADERS, "timelimit": ["a", "b"]}),
    "time limit: for ever": message(headers={**_HEADERS, "timelimit": [math.inf, None]}),
    "no properties": message(properties=None),
    "no tag": message(properties={"delivery_info": {"exchange": "", "routing_key": SINGLE}}),
    "no destination": message(properties={"body_encoding": "base64", "delivery_tag": "tag"}),
    "destination: of no text": message(
        properties={**_PROPERTIES, "delivery_info": {"exchange": [], "routing_key": {}}}
    ),
    "encoding: unknown": message(properties={**_PROPERTIES, "body_encoding": "rot13"}),
    "no body": message(body=None),
    "body: no base64": message(body="%%%"),
    "arguments: text": message(body=body("x")),
    "arguments: too few": message(body=body([[]])),
    "type: none": message(content_type=None),
    "tag: a list": message(properties={**_PROPERTIES, "delivery_tag": [1]}),
    "nested": b"[" * 5000,
    "a type of kombu's": b'{"__type__":"decimal","__value__":"x"}',
    "another": b'{"__type__":"datetime","__value__":5}',
    "unknown, and id: a list": message(headers={"task": "nope", "id": [1]}),
    "stamped headers: a number": message(headers={**_HEADERS, "stamped_headers": 5}),
    "time limit: texts, for later": message(headers={**_HEADERS, "timelimit": "x", "eta": "2020-01-01T00:00:00"}),
    "arguments: nested": message(body=base64.b64encode(b"[[%b1%b], {}, {}]" % (b"[" * 600, b"]" * 600)).decode()),
}


def test_what_is_no_message_of_celerys_is_dropped_and_the_worker_serves_on(
    redis: RedisServer, worker: WorkerProcess, root: Path
) -> None:
    """Over most of these Celery ends, and gives them back before, to end the next worker."""
    Image.new("RGB", (8, 8)).save(root / "good.png")
    client = Labelmill(redis.broker_url)
    for name, raw in ODD.items():
        redis.client.lpush(SINGLE, raw)
        call = client.celery.send_task("labelmill.classify", [str(root / "good.png")], {"model": MODEL})
        assert call.get(timeout=30)["status"] == "succeeded", name
    eventually(lambda: redis.client.llen(SINGLE) == redis.client.hlen("unacked") == 0, what="all are settled")
    assert worker.process.poll() is None
    dropped = [line["message"] for line in map(json.loads, worker.log().splitlines()) if "dropped" in line["message"]]
    assert len(dropped) == len(ODD), dropped
    assert all("\n" not in line for line in dropped)


def test_a_message_may_name_any_key_as_its_destination(redis: RedisServer, worker: WorkerProcess, root: Path) -> None:
    Image.new("RGB", (8, 8)).save(root / "good.png")
    client = Labelmill(redis.broker_url)
    for key in ("unacked", "unacked_index", None):
        where = {"exchange": "", "routing_key": key}
        redis.client.lpush(SINGLE, message(properties={**_PROPERTIES, "delivery_info": where}))
        call = client.celery.send_task("labelmill.classify", [str(root / "good.png")], {"model": MODEL})
        assert call.get(timeout=30)["status"] == "succeeded", key
    assert worker.process.poll() is None
