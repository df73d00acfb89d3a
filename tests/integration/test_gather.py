"""Single calls under load are run in micro-batches, and stay ordinary Celery tasks."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from celery import chain, chord, group, signature
from PIL import Image

from producer.client import Labelmill
from tests.support.servers import RedisServer, WorkerProcess, worker_process

CALLS = 120


@pytest.fixture
def client(redis: RedisServer) -> Labelmill:
    return Labelmill(settings=redis.settings)


@pytest.fixture
def greys(tmp_path: Path) -> Path:
    """Pictures that a model can tell apart, and one that is none."""
    for level in range(8):
        Image.new("RGB", (32, 32), (level * 32, 0, 0)).save(tmp_path / f"{level}.png")
    (tmp_path / "bad.png").write_text("no picture")
    return tmp_path


@pytest.fixture
def one_process(redis: RedisServer, greys: Path) -> Iterator[WorkerProcess]:
    env = {"LABELMILL_INTERACTIVE_BATCH": "16"}
    with worker_process(redis, model="cifar10-cnn", concurrency=1, file_roots=[greys], env=env) as worker:
        yield worker


def call(client: Labelmill, image: str, **options: int) -> signature:
    made = client.celery.signature(
        "labelmill.classify", (image,), {"model": "cifar10-cnn", **options}, queue="cifar10-cnn.interactive"
    )
    made.type  # noqa: B018 - bound to the client's application
    return made


def test_every_call_gets_its_own_answer_whoever_it_ran_with(
    one_process: WorkerProcess, client: Labelmill, greys: Path
) -> None:
    names = [f"{i % 8}.png" if i % 10 else "bad.png" for i in range(CALLS)]
    alone = {name: call(client, name, top_k=3).apply_async().get(timeout=60) for name in set(names)}
    pending = [call(client, name, top_k=3).apply_async() for name in names]
    for name, result in zip(names, pending, strict=True):
        assert result.get(timeout=60) == alone[name]
    assert len({str(answer) for answer in alone.values()}) == len(alone), "the pictures cannot be told apart"


def test_calls_of_different_width_share_a_batch(one_process: WorkerProcess, client: Labelmill) -> None:
    pending = [(k, call(client, "3.png", top_k=k).apply_async()) for k in (1, 5, 10) * 20]
    assert {(k, len(result.get(timeout=60)["labels"])) for k, result in pending} == {(1, 1), (5, 5), (10, 10)}
