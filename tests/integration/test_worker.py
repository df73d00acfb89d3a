"""A real worker on a real Redis: bulk jobs and single calls, with every runtime and every pool."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from jobs.items import Result
from jobs.ledger import COUNTS
from producer.client import Job, Labelmill
from producer.sources import Files
from tests.support.servers import RedisServer, WorkerProcess, eventually, worker_process
from worker.export.prepare import prepare

PHOTOS = Path(__file__).resolve().parents[2] / "examples" / "photos"
#: What must come out, by the first word of a class name.
TRUE_LABELS = {"coffee.jpg": r"espresso", "chelsea": r"tabby|tiger cat|Egyptian cat", "rocket": r"missile|projectile"}


def plain_celery(redis: RedisServer, call: str) -> list[dict[str, Any]]:
    """What a user's own process gets that knows ``tasks`` and the broker's URL, and nothing else of ours."""
    script = "import json; from celery import group; from tasks import classify; "
    script += f"answer = ({call}).get(timeout=60); print(json.dumps(answer if isinstance(answer, list) else [answer]))"
    env = os.environ | {"LABELMILL_BROKER_URL": redis.broker_url}
    done = subprocess.run([sys.executable, "-c", script], env=env, capture_output=True, text=True, check=True)
    answers: list[dict[str, Any]] = json.loads(done.stdout)
    return answers


def results_by_id(job: Job) -> dict[str, Result]:
    found = list(job.results())
    assert len({result.custom_id for result in found}) == len(found), "an image came twice"
    return {result.custom_id: result for result in found}


@pytest.mark.parametrize("file_format", ["onnx", "torchscript"])
def test_photographs_get_their_true_labels(file_format: str, redis: RedisServer) -> None:
    model = prepare("efficientnet-lite0", file_format=file_format)  # type: ignore[arg-type]
    with worker_process(redis, model=str(model), concurrency=1, file_roots=[PHOTOS]):
        client = Labelmill(settings=redis.settings)
        job = client.submit(Files([PHOTOS]), model="efficientnet-lite0")
        found = results_by_id(job)
    for name, pattern in TRUE_LABELS.items():
        (result,) = (result for custom_id, result in found.items() if name in custom_id)
        assert result.labels is not None
        assert re.search(pattern, result.labels[0]["label"]), result
        assert result.model == {"name": "efficientnet-lite0", "digest": client.models()[0].digest}
    assert found["broken.jpg"].error is not None
    assert found["broken.jpg"].error["code"] == "corrupt_image"
    counts = job.status().request_counts
    assert counts["total"] == len(list(Files([PHOTOS]))) == counts["succeeded"] + counts["failed"]
    assert counts["failed"] == 1


@pytest.fixture
def many(tmp_path: Path) -> Path:
    Image.new("RGB", (8, 8), "red").save(tmp_path / "0.png")
    for i in range(1, 300):
        shutil.copy(tmp_path / "0.png", tmp_path / f"{i}.png")
    return tmp_path


@pytest.mark.parametrize("pool", ["prefork", "solo", "threads"])
def test_every_pool_serves_bulk_and_single_calls(pool: str, redis: RedisServer, many: Path) -> None:
    with worker_process(redis, pool=pool, file_roots=[many], app="tasks") as worker:
        job = Labelmill(settings=redis.settings).submit(Files([many]), model="noop", chunk_size=7)
        assert len(results_by_id(job)) == 300
        (answer,) = plain_celery(redis, "classify.delay('0.png', model='noop', top_k=1)")
        assert answer["labels"] == [{"label": "noop-0", "index": 0, "score": 0.5}]
        worker.terminate()
        assert worker.wait() == 0


def test_the_model_is_loaded_once_in_each_process(redis: RedisServer, many: Path) -> None:
    with worker_process(redis, concurrency=2, file_roots=[many]) as worker:
        job = Labelmill(settings=redis.settings).submit(Files([many]), model="noop", chunk_size=3)
        assert len(results_by_id(job)) == 300
        assert worker.log().count("is warm in process") == 2


def test_the_first_image_of_a_process_waits_for_no_import(redis: RedisServer, many: Path) -> None:
    model = prepare("efficientnet-lite0")
    with worker_process(
        redis, app="tests.support.imports_app", model=str(model), concurrency=1, file_roots=[many]
    ) as worker:
        job = Labelmill(settings=redis.settings).submit(Files([many / "0.png"]), model="efficientnet-lite0")
        assert len(results_by_id(job)) == 1
        plain_celery(redis, "classify.delay('0.png', model='efficientnet-lite0')")
        eventually(lambda: worker.log().count("imported: ") >= 2)
        assert set(re.findall(r"imported: (.*?)\.\"", worker.log())) == {". looked at: 0"}


def test_a_root_that_is_not_there_is_said_at_the_start(redis: RedisServer, many: Path, tmp_path: Path) -> None:
    with worker_process(redis, file_roots=[many, tmp_path / "nowhere"]) as worker:
        said = [line for line in worker.log().splitlines() if "LABELMILL_FILE_ROOTS" in line]
        assert len(said) == 1
        assert f"{tmp_path}/nowhere cannot be read" in said[0]


def test_a_bad_single_image_is_an_answer_and_fails_no_group(redis: RedisServer, tmp_path: Path) -> None:
    Image.new("RGB", (40, 40)).save(tmp_path / "good.png")
    (tmp_path / "page.jpg").write_text("<html>no picture</html>")
    model = prepare("efficientnet-lite0")
    with worker_process(redis, model=str(model), concurrency=1, file_roots=[tmp_path]):
        names = ["good.png", "page.jpg", "missing.png", "/etc/passwd"]
        answers = plain_celery(redis, f"group(classify.s(n, model='efficientnet-lite0') for n in {names})()")
    codes = [answer.get("error", {}).get("code", answer["status"]) for answer in answers]
    assert codes == ["succeeded", "unsupported_format", "not_found", "forbidden"]


def test_two_models_on_one_worker_keep_their_results_apart(redis: RedisServer, many: Path) -> None:
    with worker_process(redis, model="noop,noop:3", file_roots=[many]):
        client = Labelmill(settings=redis.settings)
        jobs = {name: client.submit(Files([many]), model=name, top_k=9) for name in ("noop", "noop-3")}
        widths = {name: {len(r.labels or []) for r in job.results()} for name, job in jobs.items()}
    assert widths == {"noop": {9}, "noop-3": {3}}


def test_a_small_job_is_not_stuck_behind_a_large_one(redis: RedisServer, many: Path) -> None:
    client = Labelmill(settings=redis.settings)
    large = client.submit(Files([many]), model="noop", chunk_size=1)
    small = client.submit(Files([many / "0.png", many / "1.png"]), model="noop", chunk_size=1)
    with worker_process(redis, concurrency=1):
        ended = eventually(lambda: [job for job in (large, small) if job.status().ended])
        assert ended == [small]
        large.wait()


def test_the_books_balance_while_work_goes_on(noop_worker: WorkerProcess, redis: RedisServer, many: Path) -> None:
    client = Labelmill(settings=redis.settings)
    job = client.submit(Files([many]), model="noop", chunk_size=1)
    while not (status := job.status()).ended:
        counts = status.request_counts
        assert counts["total"] == sum(counts[name] for name in COUNTS[1:]) == 300
    assert status.request_counts["succeeded"] == 300
