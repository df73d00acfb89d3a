"""Results on a real Redis: followed, cut off, sorted, retried meanwhile. The test does the worker's part itself."""

from __future__ import annotations

import csv
import json
import os
import signal
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from jobs.errors import CrashedWorkerError, UsageError
from jobs.items import Item
from jobs.ledger import Claim
from jobs.registry import ModelInfo
from producer.client import Labelmill
from producer.job import Job
from producer.outputs.sort import InputOrder
from tests.support.cli import labelmill, spawned
from tests.support.servers import RedisServer, eventually

COUNT = 400
NAMES = [f"{number:03}.jpg" for number in range(COUNT)]


@pytest.fixture
def job(redis: RedisServer) -> Job:
    """A job of 40 chunks that all wait."""
    redis.registry.publish_model(ModelInfo("noop", "sha256:00", labels=("cat", "dog")))
    client = Labelmill(settings=redis.settings)
    return client.submit([Item(n, f"/{n}") for n in NAMES], model="noop", job_id="job-1", top_k=1, chunk_size=10)


def claim(job: Job, token: str) -> Claim | None:
    return job.client.ledger.claim("noop.bulk", token, lease_s=60)


def finish(job: Job, held: Claim, *, failing: bool = True) -> None:
    """The answer to a chunk: each image whose number ends in 7 fails, every other way in turn."""
    lines, failed = [], 0
    for item in held.chunk.items:
        bad = failing and item.custom_id.endswith("7.jpg")
        failed += bad
        code = b"fetch_timeout" if item.custom_id.endswith("17.jpg") else b"corrupt_image"
        lines.append(b'["%b","why"]' % code if bad else b"[0,9000]")
    done, ledger = len(lines) - failed, job.client.ledger
    assert ledger.finish(held, succeeded=done, failed=failed, results=b"\n".join(lines), digest="sha256:00")


def work(job: Job, chunks: int = COUNT, *, failing: bool = True) -> None:
    for _ in range(chunks):
        held = claim(job, f"token-{job.status().claims}")
        if held is None:
            return
        finish(job, held, failing=failing)


def ids(path: Path) -> list[str]:
    if path.suffix == ".csv":
        with path.open(newline="") as file:
            return [row["custom_id"] for row in csv.DictReader(file)]
    return [json.loads(line)["custom_id"] for line in path.read_bytes().splitlines()]


def marked(out: Path) -> int:
    """How many results are known to be in a file that grows."""
    state = out.with_name(f".{out.name}.labelmill")
    return json.loads(state.read_bytes())["written"][0] if state.exists() else 0


@pytest.mark.parametrize("suffix", ["jsonl", "csv"])
def test_follow_that_was_killed_again_and_again_loses_and_doubles_no_line(
    suffix: str, job: Job, redis: RedisServer, tmp_path: Path
) -> None:
    out, errors, log = tmp_path / f"out.{suffix}", tmp_path / f"errors.{suffix}", tmp_path / "log"
    follow = ["results", job.id, "--follow", "--output", out, "--errors", errors]
    for number in range(1, 3):
        with spawned(redis, *follow, log=log) as process:
            work(job, 8)
            eventually(lambda least=number: marked(out) >= 72 * (least - 1) + 1, what="a mark further on")  # type: ignore[misc]
            process.kill()
    work(job)
    with spawned(redis, *follow, log=log) as process:
        assert process.wait(60) == 0, log.read_text()
    bad = [name for name in NAMES if name.endswith("7.jpg")]
    assert sorted(ids(errors)) == bad
    assert sorted(ids(out)) == [name for name in NAMES if name not in bad]
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(["log", out.name, errors.name])
    assert "going on after" in log.read_text()


def test_follow_with_all_columns_waits_for_the_first_results_and_is_taken_up(
    redis: RedisServer, tmp_path: Path
) -> None:
    out, log = tmp_path / "out.csv", tmp_path / "log"
    redis.registry.publish_model(ModelInfo("noop", "sha256:00", labels=("cat", "dog")))
    images = [Item(name, f"/{name}", {"owner": "ann", "status": "mine"}) for name in NAMES[:40]]
    job = Labelmill(settings=redis.settings).submit(images, model="noop", top_k=1, chunk_size=10)
    follow = ["results", job.id, "--follow", "--columns", "all", "--output", out]
    with spawned(redis, *follow, log=log) as process:
        eventually(lambda: "0/40" in log.read_text(), what="it waits")
        work(job, 2)
        eventually(lambda: marked(out) >= 10, what="a mark")
        process.kill()
    work(job)
    with spawned(redis, *follow, log=log) as process:
        assert process.wait(60) == 0, log.read_text()
    with out.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert sorted(row["custom_id"] for row in rows) == NAMES[:40]
    assert {(row["owner"], row["fields"]) for row in rows} == {("ann", '{"status":"mine"}')}
    assert {row["status"] for row in rows} == {"succeeded", "failed"}


def test_follow_writes_to_a_pipe_and_to_stdout_as_results_come(job: Job, redis: RedisServer, tmp_path: Path) -> None:
    work(job)
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    with spawned(redis, "results", job.id, "--follow", "--output", pipe, log=tmp_path / "log") as process:
        assert len(pipe.read_bytes().splitlines()) == COUNT
        assert process.wait(60) == 0
    assert len(labelmill(redis, "results", job.id, "--follow", "--output", "-").out.splitlines()) == COUNT
    assert sorted(path.name for path in tmp_path.iterdir()) == ["log", "pipe"]


def test_follow_that_is_interrupted_keeps_what_it_has(job: Job, redis: RedisServer, tmp_path: Path) -> None:
    out, log = tmp_path / "out.jsonl", tmp_path / "log"
    work(job, 10)
    with spawned(redis, "results", job.id, "--follow", "--output", out, log=log) as process:
        eventually(lambda: out.exists() and len(out.read_bytes().splitlines()) == 100, what="100 lines")
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 130
    assert "Traceback" not in log.read_text()
    work(job)
    assert labelmill(redis, "results", job.id, "--follow", "--output", out).code == 0
    assert sorted(ids(out)) == NAMES


def test_what_was_retried_while_it_was_followed_stands_there_once(job: Job, redis: RedisServer, tmp_path: Path) -> None:
    out, log = tmp_path / "out.jsonl", tmp_path / "log"
    work(job, 39)
    with spawned(redis, "results", job.id, "--follow", "--output", out, log=log) as process:
        eventually(lambda: out.exists() and len(out.read_bytes().splitlines()) == 390, what="390 lines")
        assert labelmill(redis, "retry", job.id, "--code", "fetch_timeout", "--json").json["retried"] == 4
        work(job, failing=False)
        assert process.wait(60) == 0, log.read_text()
    assert sorted(ids(out)) == NAMES
    statuses = {json.loads(line)["custom_id"]: json.loads(line)["status"] for line in out.read_bytes().splitlines()}
    assert statuses["017.jpg"] == "succeeded"
    assert statuses["007.jpg"] == "failed"
    assert "retried meanwhile" in log.read_text()


def test_what_failed_with_a_code_of_another_version_can_be_retried_by_it(job: Job) -> None:
    held = claim(job, "token")
    assert held is not None
    results = b"\n".join([b'["code_to_come","why"]'] * 10)
    assert job.client.ledger.finish(held, succeeded=0, failed=10, results=results, digest="sha256:00")
    assert job.retry(code="code_to_come") == 10


def test_retry_runs_what_failed_again_all_or_by_code(job: Job, redis: RedisServer) -> None:
    work(job)
    assert job.status().request_counts["failed"] == 40
    for known in ("not_found", "model_corrupt", "job_error"):
        assert job.retry(code=known) == 0
    with pytest.raises(UsageError, match=r"'no_such_code'; codes are corrupt_image, .*fetch_timeout"):
        job.retry(code="no_such_code")
    said = labelmill(redis, "retry", job.id, "--code", "no_such_code")
    assert said.code == 2
    assert said.err.count("\n") == 1
    assert "fetch_timeout" in said.err
    assert job.retry(code="fetch_timeout") == 4
    assert job.status().state == "in_progress"
    work(job, failing=False)
    assert "36 images to run again" in labelmill(redis, "retry", job.id).out
    work(job, failing=False)
    assert "nothing to run again" in labelmill(redis, "retry", job.id).out
    found = list(job.results())
    assert sorted(result.custom_id for result in found) == NAMES
    assert {result.status for result in found} == {"succeeded"}
    assert job.audit().is_balanced


def test_sorted_results_stand_in_the_order_of_the_input(job: Job, redis: RedisServer, tmp_path: Path) -> None:
    """Chunks that end in any order, halves of chunks, and images that were retried, twice."""
    ledger = job.client.ledger
    held = [claim(job, f"h{number}") for number in range(4)]
    work(job, 20)
    for number in (0, 2):  # these are halved: their worker died twice
        ledger.crashed(f"h{number}", CrashedWorkerError())
    for number in (0, 1):
        assert claim(job, f"again{number}")
    ledger.crashed("again0", CrashedWorkerError())
    ledger.crashed("again1", CrashedWorkerError())
    work(job)
    for one in (held[3], held[1]):
        assert one is not None
        finish(job, one)
    for _ in range(2):
        job.retry()
        work(job)
    job.retry(code="fetch_timeout")
    work(job, failing=False)
    assert job.status().ended
    assert [result.custom_id for result in job.results()] != NAMES
    for name in ("out.jsonl", "out.csv"):
        assert labelmill(redis, "results", job.id, "--sort", "--output", tmp_path / name).code == 0
        assert ids(tmp_path / name) == NAMES
    assert labelmill(redis, "results", job.id, "--sort", "--output", tmp_path / "out.parquet").code == 0
    assert pq.read_table(tmp_path / "out.parquet")["custom_id"].to_pylist() == NAMES


def test_sorting_takes_no_memory_for_each_result(job: Job) -> None:
    work(job)
    order = InputOrder(job.client.ledger, job.id)
    for _, results in job.pages():
        order.write(results)
    batches = list(order)
    order.close()
    assert [r.custom_id for batch in batches for r in batch] == NAMES
    assert batches[0][0].as_dict() == next(r.as_dict() for r in job.results() if r.custom_id == NAMES[0])


def test_results_without_follow_are_those_of_the_moment_and_appear_whole(
    job: Job, redis: RedisServer, tmp_path: Path
) -> None:
    work(job, 3)
    out = tmp_path / "out.jsonl"
    done = labelmill(redis, "results", job.id, "--output", out, "--json")
    assert done.json == {
        "id": job.id,
        "state": "in_progress",
        "format": "jsonl",
        "output": str(out),
        "written": 30,
        "errors_file": None,
        "errors": 0,
    }
    assert os.listdir(tmp_path) == ["out.jsonl"]


def test_dead_letters_are_listed_shown_replayed_and_dropped(redis: RedisServer) -> None:
    client = Labelmill(settings=redis.settings)
    job = client.submit([Item(n, f"/{n}") for n in "abc"], model="noop", job_id="dead", chunk_size=1)
    while (held := claim(job, f"t{job.status().claims}")) is not None:
        client.ledger.crashed(held.token, CrashedWorkerError())
    assert job.status().request_counts["failed"] == 3
    letters = labelmill(redis, "dead-letters", "list", "dead", "--json").json
    assert sorted(letter["custom_id"] for letter in letters) == ["a", "b", "c"]
    first, second, third = (letter["entry"] for letter in letters)
    assert first in labelmill(redis, "dead-letters", "list", "dead").out
    (shown,) = labelmill(redis, "dead-letters", "show", "dead", first, "--json").json
    assert (shown["code"], shown["reference"]) == ("crashed_worker", f"/{shown['custom_id']}")
    assert "crashed_worker" in labelmill(redis, "dead-letters", "show", "dead", first).out
    assert labelmill(redis, "dead-letters", "replay", "dead", first, "--json").json["replayed"] == [first]
    work(job, failing=False)
    assert labelmill(redis, "dead-letters", "drop", "dead", second).code == 0
    assert [x["entry"] for x in labelmill(redis, "dead-letters", "list", "dead", "--json").json] == [third]
    assert job.status().request_counts["succeeded"] == 1
    assert labelmill(redis, "dead-letters", "drop", "dead", "--all").code == 0
    assert labelmill(redis, "dead-letters", "list", "dead", "--json").json == []
    missing = labelmill(redis, "dead-letters", "show", "dead", "1-1")
    assert (missing.code, "no dead letter 1-1" in missing.err) == (2, True)
    assert labelmill(redis, "dead-letters", "replay", "dead").code == 2


def test_a_reader_reads_on_where_its_job_is_retried_while_it_is_at_the_last_page(job: Job) -> None:
    work(job)
    pages = job.pages()
    seen = 0
    while seen < COUNT:
        seen += len(next(pages)[1])
    assert job.status().ended
    retried = job.retry(code="fetch_timeout")
    assert retried
    work(job, failing=False)
    assert sum(len(results) for _, results in pages) == retried
