"""Single calls under load are run in micro-batches, and stay ordinary Celery tasks."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from celery.result import AsyncResult
from PIL import Image

from producer.client import Labelmill
from tests.support.servers import RedisServer, WorkerProcess, redis_server, worker_process

ROOT = Path(__file__).resolve().parents[2]
CALLS = 120


@pytest.fixture(scope="module")
def server() -> Iterator[RedisServer]:
    with redis_server() as server:
        yield server


@pytest.fixture(scope="module")
def client(server: RedisServer) -> Labelmill:
    return Labelmill(settings=server.settings)


@pytest.fixture(scope="module")
def greys(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pictures that a model can tell apart, and one that is none."""
    tmp_path = tmp_path_factory.mktemp("greys")
    for level in range(8):
        Image.new("RGB", (32, 32), (level * 32, 255 - 30 * level, 90 * (level % 3))).save(tmp_path / f"{level}.png")
    (tmp_path / "bad.png").write_text("no picture")
    return tmp_path


@pytest.fixture(scope="module")
def one_process(server: RedisServer, greys: Path, cifar10_cnn: Path) -> Iterator[WorkerProcess]:
    models = f"{cifar10_cnn},noop"
    with worker_process(server, model=models, concurrency=1, file_roots=[greys]) as worker:
        yield worker


def call(
    client: Labelmill, image: str, top_k: int, model: str = "cifar10-cnn", lane: str = "cifar10-cnn"
) -> AsyncResult:
    options = {"model": model, "top_k": top_k}
    return client.celery.send_task("labelmill.classify", (image,), options, queue=f"{lane}.interactive")


def test_every_call_gets_its_own_answer_whoever_it_ran_with(
    one_process: WorkerProcess, client: Labelmill, greys: Path
) -> None:
    names = [f"{i % 8}.png" if i % 10 else "bad.png" for i in range(CALLS)]
    alone = {name: call(client, name, 3).get(timeout=60) for name in set(names)}
    pending = [call(client, name, 3) for name in names]
    for name, result in zip(names, pending, strict=True):
        assert result.get(timeout=60) == alone[name]
    assert len({str(answer) for answer in alone.values()}) == len(alone), "the pictures cannot be told apart"


def test_calls_of_different_width_share_a_batch(one_process: WorkerProcess, client: Labelmill) -> None:
    pending = [(k, call(client, "3.png", k)) for k in (1, 5, 10) * 20]
    assert {(k, len(result.get(timeout=60)["labels"])) for k, result in pending} == {(1, 1), (5, 5), (10, 10)}


def test_calls_of_two_models_are_answered_by_their_own(one_process: WorkerProcess, client: Labelmill) -> None:
    models = ("cifar10-cnn", "noop")
    sent = [(model, call(client, "3.png", 1, model, lane)) for lane in models for model in models for _ in range(20)]
    assert [result.get(timeout=60)["model"]["name"] for _, result in sent] == [model for model, _ in sent]


CANVAS = """
import json
from celery import chain, chord, group
from tasks import classify

one = [classify.s(f"{i % 8}.png", model="cifar10-cnn", top_k=1) for i in range(60)]
direct = [answer["labels"][0]["index"] for answer in group(one)().get(timeout=60)]
options = {"model": "cifar10-cnn", "top_k": 1}
waiting = [classify.signature((f"{i % 8}.png",), options, immutable=True) for i in range(60)]
chains = [chain(waiting[i], waiting[(i + 1) % 60])() for i in range(60)]
second = [c.get(timeout=60)["labels"][0]["index"] for c in chains]
body = classify.signature(("7.png",), options, immutable=True)
after = chord(one, body)().get(timeout=60)["labels"][0]["index"]
print(json.dumps([direct, second, after]))
"""


def test_groups_chains_and_chords_work_as_with_any_task(one_process: WorkerProcess, server: RedisServer) -> None:
    env = os.environ | {"LABELMILL_BROKER_URL": server.broker_url}
    done = subprocess.run([sys.executable, "-c", CANVAS], env=env, capture_output=True, text=True, check=True, cwd=ROOT)
    direct, second, after = json.loads(done.stdout)
    assert direct == direct[:8] * 7 + direct[:4]
    assert second == direct[1:] + direct[:1]
    assert after == direct[7]
    assert len(set(direct)) > 1, "the pictures cannot be told apart"
