"""The commands on a real Redis with a real worker: submit, watch, fetch, cancel, retry, audit, delete."""

from __future__ import annotations

import csv
import io
import json
import os
import pty
import select
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from jobs.items import Item
from producer.client import Labelmill
from producer.sources import Upload
from tests.support.cli import labelmill, spawned
from tests.support.servers import ROOT, RedisServer, WorkerProcess, eventually, redis_server, worker_process


@pytest.fixture(scope="module")
def served() -> Iterator[tuple[RedisServer, WorkerProcess]]:
    """One Redis with a worker of noop for all of these tests."""
    with redis_server() as redis, worker_process(redis, concurrency=1) as worker:
        yield redis, worker


@pytest.fixture
def redis(served: tuple[RedisServer, WorkerProcess]) -> RedisServer:
    """The Redis, with no job."""
    for job in served[0].ledger.jobs():
        served[0].ledger.delete(job)
    return served[0]


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    for name in ("a.jpg", "sub/b.png", "sub/c.jpg"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(name.encode())
    return folder


# -- submit ----------------------------------------------------------------------------------------


def test_submit_prints_the_id_and_nothing_else_on_stdout(redis: RedisServer, photos: Path) -> None:
    done = labelmill(redis, "submit", photos, "--model", "noop", "--metadata", "owner=ann", "--metadata", "n=1")
    assert done.code == 0, done.err
    (job,) = done.out.split()
    assert "3/3, 0 failed" in done.err
    status = labelmill(redis, "status", job, "--json").json
    assert (status["state"], status["metadata"]) == ("ended", {"owner": "ann", "n": "1"})
    assert status["request_counts"]["succeeded"] == 3


def test_the_same_job_id_again_is_the_same_job(redis: RedisServer, photos: Path) -> None:
    first = labelmill(redis, "submit", photos, "--model", "noop", "--job-id", "tuesday", "--json").json
    again = labelmill(redis, "submit", photos, "--model", "noop", "--job-id", "tuesday", "--json").json
    assert (first["id"], first["sent"], again["sent"]) == ("tuesday", 3, 0)
    assert again["request_counts"] == first["request_counts"]
    other = labelmill(redis, "submit", photos, "--model", "noop", "--job-id", "tuesday", "--top-k", "1")
    assert (other.code, other.out) == (7, "")
    assert other.err == "labelmill: job tuesday is there already, with top_k 5 and not 1\n"


def test_detach_ends_when_all_is_sent_whether_or_not_a_worker_is_there(redis: RedisServer, photos: Path) -> None:
    done = labelmill(redis, "submit", photos, "--model", "nobody", "--detach", "--force", "--json")
    assert (done.code, done.json["sent"], done.json["state"]) == (0, 3, "in_progress")
    assert done.json["request_counts"]["queued"] == 3


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["/no/such/folder"], 3, "no such file or folder: /no/such/folder"),
        (["{empty}"], 3, "no images found in {empty}"),
        (["{photos}", "--model", "nobody"], 6, "serves 'nobody' (served there: noop)"),
        (["{photos}", "--digest", "abc"], 6, "serves 'noop' with sha256:abc (served there: sha256:"),
        (["{photos}", "--job-id", "a b"], 2, "job id 'a b' must be"),
        (["{photos}", "--webhook", "ftp://x"], 2, "webhook must be"),
        (["{photos}", "{photos}/sub"], 3, "named twice"),
    ],
)
def test_bad_input_is_one_line_with_its_own_exit_code(
    arguments: list[str], code: int, said: str, redis: RedisServer, photos: Path
) -> None:
    (photos.parent / "empty").mkdir()
    places = {"photos": photos, "empty": photos.parent / "empty"}
    done = labelmill(redis, "submit", "--model", "noop", *(word.format(**places) for word in arguments))
    assert (done.code, done.out) == (code, "")
    assert said.format(**places) in done.err
    assert done.err.count("\n") == 1, done.err
    assert redis.ledger.jobs() == []


def test_bad_lines_are_named_and_left_out_and_strict_stops(redis: RedisServer, photos: Path) -> None:
    manifest = photos / "list.jsonl"
    manifest.write_text('{"path": "a.jpg", "owner": "ann"}\n{oops\n{"custom_id": "x"}\n{"path": "sub/c.jpg"}\n')
    strict = labelmill(redis, "submit", manifest, "--model", "noop", "--strict")
    assert (strict.code, strict.out, redis.ledger.jobs()) == (3, "", [])
    assert f"{manifest}:2: is no JSON" in strict.err
    assert f"{manifest}:3: has neither path nor url" in strict.err
    lax = labelmill(redis, "submit", manifest, "--model", "noop", "--json")
    assert (lax.code, lax.json["bad_lines"], lax.json["sent"]) == (0, 2, 2)
    assert lax.err.count("left out") == 2


def test_a_beginning_of_the_digest_pins_the_model_file(redis: RedisServer, photos: Path) -> None:
    (model,) = labelmill(redis, "models", "--json").json
    job = labelmill(redis, "submit", photos, "--model", "noop", "--digest", model["digest"][7:15], "--json").json
    assert (job["digest"], job["request_counts"]["succeeded"]) == (model["digest"], 3)


# -- results ---------------------------------------------------------------------------------------


@pytest.fixture
def owners(redis: RedisServer, photos: Path) -> str:
    """A job with fields of the user's own."""
    manifest = photos / "list.csv"
    manifest.write_text('custom_id,path,owner,split\n2,sub/c.jpg,ann,test\n1,a.jpg,"Tom, jr",\n')
    return labelmill(redis, "submit", manifest, "--model", "noop").out.strip()


def test_results_go_to_stdout_with_the_users_own_fields(redis: RedisServer, owners: str) -> None:
    lines = [json.loads(line) for line in labelmill(redis, "results", owners).out.splitlines()]
    assert [(line["custom_id"], line["fields"]["owner"]) for line in lines] == [("2", "ann"), ("1", "Tom, jr")]
    assert lines[0]["labels"][0]["label"] == "noop-0"


def test_the_users_own_fields_are_columns_of_tables(redis: RedisServer, owners: str, tmp_path: Path) -> None:
    table = labelmill(redis, "results", owners, "--format", "csv", "--columns", "all").out
    rows = list(csv.DictReader(io.StringIO(table)))
    assert [(row["custom_id"], row["owner"], row["split"], row["fields"]) for row in rows] == [
        ("2", "ann", "test", ""),
        ("1", "Tom, jr", "", ""),
    ]
    out = tmp_path / "out.parquet"
    assert labelmill(redis, "results", owners, "--output", out, "--columns", "owner").code == 0
    columns = pq.read_table(out).to_pydict()
    assert columns["owner"] == ["ann", "Tom, jr"]
    assert [json.loads(rest) for rest in columns["fields"]] == [{"split": "test"}, {"split": ""}]


def test_a_manifest_can_be_joined_afterwards(redis: RedisServer, photos: Path, tmp_path: Path) -> None:
    job = labelmill(redis, "submit", photos, "--model", "noop").out.strip()
    (tmp_path / "own.csv").write_text("path,owner\na.jpg,ann\nsub/c.jpg,tom\nother.jpg,eve\n")
    table = labelmill(redis, "results", job, "--format", "csv", "--columns", "all", "--join", tmp_path / "own.csv").out
    owners = {row["custom_id"]: row["owner"] for row in csv.DictReader(io.StringIO(table))}
    assert owners == {"a.jpg": "ann", "sub/b.png": "", "sub/c.jpg": "tom"}


def test_a_job_that_goes_on_says_so(redis: RedisServer, photos: Path, tmp_path: Path) -> None:
    labelmill(redis, "submit", photos, "--model", "nobody", "--detach", "--force", "--job-id", "waits")
    done = labelmill(redis, "results", "waits", "--output", tmp_path / "out.jsonl", "--json")
    assert (done.code, done.json["written"], done.json["state"]) == (0, 0, "in_progress")
    assert "goes on: 0 of 3" in done.err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--json"], "name a file with --output"),
        (["--output", "{out}", "--errors", "{out}"], "two files"),
        (["--output", "x.csv", "--errors", "x.jsonl"], "--errors x.jsonl would be csv"),
        (["--errors", "x.parquet"], "--errors x.parquet would be jsonl"),
        (["--columns", "owner"], "in jsonl your fields are"),
        (["--columns", "owner,status", "--format", "csv"], "every table has 'status' already"),
        (["--columns", "label_1", "--format", "parquet", "--output", "{out}"], "every table has 'label_1' already"),
        (["--output", "/proc/nope/x.jsonl"], "cannot write /proc/nope/x.jsonl"),
        (["--follow", "--output", "/proc/nope/x.jsonl"], "cannot write /proc/nope/x.jsonl"),
    ],
)
def test_results_that_cannot_be_written_say_why(
    arguments: list[str], said: str, redis: RedisServer, owners: str, tmp_path: Path
) -> None:
    done = labelmill(redis, "results", owners, *(word.format(out=tmp_path / "o") for word in arguments))
    assert (done.code, done.out) == (2, "")
    assert said in done.err
    assert done.err.count("\n") == 1


def test_errors_go_into_a_file_of_any_name_in_the_format_that_was_said(
    redis: RedisServer, owners: str, tmp_path: Path
) -> None:
    for name, format in (("e.jsonl", ["--format", "csv"]), ("e.log", [])):
        done = labelmill(redis, "results", owners, "--output", tmp_path / "o.csv", "--errors", tmp_path / name, *format)
        assert done.code == 0, done.err
        assert (tmp_path / name).read_text().startswith("custom_id,")


# -- the rest --------------------------------------------------------------------------------------


def idle_worker(redis: RedisServer) -> dict[str, Any]:
    """The only worker, once it says that it has nothing in hand: a ticket too many of a job that has ended is work."""

    def ready() -> dict[str, Any] | None:
        (worker,) = labelmill(redis, "workers", "--json").json
        return worker if worker["state"] == "READY" else None

    return eventually(ready, what="the worker has nothing in hand")


def test_jobs_models_and_workers_are_tables_for_people_and_json_for_scripts(redis: RedisServer, photos: Path) -> None:
    labelmill(redis, "submit", photos, "--model", "noop", "--job-id", "done")
    labelmill(redis, "submit", photos, "--model", "nobody", "--detach", "--force", "--job-id", "waits")
    assert [job["id"] for job in labelmill(redis, "jobs", "--json").json] == ["done", "waits"]
    assert [job["id"] for job in labelmill(redis, "jobs", "--json", "--state", "in_progress").json] == ["waits"]
    assert [job["id"] for job in labelmill(redis, "jobs", "--json", "--model", "noop").json] == ["done"]
    header, first, second = labelmill(redis, "jobs").out.splitlines()
    assert (header.split()[:3], first.split()[0], second.split()[0]) == (["job", "state", "model"], "done", "waits")
    (model,) = labelmill(redis, "models", "--json").json
    worker = idle_worker(redis)
    assert (model["name"], model["workers"], model["labels"]) == ("noop", 1, 10)
    assert worker["models"][0]["digest"] == model["digest"]
    assert model["digest"] in labelmill(redis, "models").out
    assert worker["node"] in labelmill(redis, "workers").out


def test_cancel_stops_what_waits_and_reports_it(redis: RedisServer, photos: Path) -> None:
    labelmill(redis, "submit", photos, "--model", "nobody", "--detach", "--force", "--job-id", "waits")
    assert "3 of 3 images cancelled" in labelmill(redis, "cancel", "waits").out
    assert "had ended" in labelmill(redis, "cancel", "waits").out
    status = labelmill(redis, "status", "waits", "--json").json
    assert (status["state"], status["request_counts"]["cancelled"]) == ("ended", 3)
    lines = [json.loads(line) for line in labelmill(redis, "results", "waits").out.splitlines()]
    assert {line["status"] for line in lines} == {"cancelled"}
    assert labelmill(redis, "audit", "waits", "--json").json["balanced"]


def test_a_submit_whose_job_is_cancelled_ends_and_does_not_say_that_it_goes_on(
    redis: RedisServer, photos: Path, tmp_path: Path
) -> None:
    submit = ["submit", photos, "--model", "nobody", "--force", "--job-id", "stopped", "--chunk-size", "1"]
    with spawned(redis, *submit, log=tmp_path / "log", LABELMILL_BACKLOG_LIMIT="1") as process:
        eventually(lambda: "sending waits" in (tmp_path / "log").read_text(), what="it waits")
        assert labelmill(redis, "cancel", "stopped").code == 0
        assert process.wait(60) == 7
    said = (tmp_path / "log").read_text()
    assert "takes no more items" in said.splitlines()[-1]
    assert "goes on" not in said


def test_audit_shows_the_books(redis: RedisServer, owners: str) -> None:
    done = labelmill(redis, "audit", owners)
    assert done.code == 0
    assert "2 = 2 succeeded + 0 failed + 0 cancelled + 0 expired + 0 queued + 0 leased" in done.out
    redis.client.hincrby(redis.ledger.key(owners), "succeeded", -1)
    broken = labelmill(redis, "audit", owners, "--json")
    assert (broken.code, broken.json["balanced"]) == (8, False)
    assert broken.json["problems"]


def test_delete_forgets_a_job_but_not_a_running_one(redis: RedisServer, photos: Path, owners: str) -> None:
    labelmill(redis, "submit", photos, "--model", "nobody", "--detach", "--force", "--job-id", "waits")
    kept = labelmill(redis, "delete", owners, "waits")
    assert (kept.code, len(redis.ledger.jobs())) == (7, 2)
    assert "waits has not ended" in kept.err
    done = labelmill(redis, "delete", owners, "waits", owners, "--force", "--json")
    assert (done.code, done.json["deleted"]) == (0, [owners, "waits"])
    assert redis.ledger.jobs() == []
    assert redis.client.keys("lm:job:*") == []


@pytest.mark.parametrize("command", ["status", "results", "cancel", "retry", "audit", "delete"])
def test_a_job_that_is_not_there_is_exit_code_7(command: str, redis: RedisServer) -> None:
    done = labelmill(redis, command, "nope")
    assert (done.code, done.out, done.err) == (7, "", "labelmill: there is no job 'nope'\n")


# -- a terminal and a pipe ---------------------------------------------------------------------------


#: Runs commands one after the other, with a mark behind each, without a start of Python for each.
SEVERAL = """
import json, sys
from producer.cli import main
for words in json.loads(sys.argv[1]):
    assert main(words) == 0, words
    print("\\x1e", flush=True)
"""


def in_terminal(redis: RedisServer, *arguments: object, columns: int = 100) -> str:
    return shown_by(redis, ["-m", "producer", *map(str, arguments)], columns=columns)


def shown_by(redis: RedisServer, python: list[str], *, columns: int = 100) -> str:
    """What a Python process shows on a terminal; it must end with 0."""
    control, terminal = pty.openpty()
    env = {**os.environ, "LABELMILL_BROKER_URL": redis.broker_url, "COLUMNS": str(columns), "TERM": "xterm"}
    process = subprocess.Popen(
        [sys.executable, *python], cwd=ROOT, env=env, stdin=terminal, stdout=terminal, stderr=terminal
    )
    os.close(terminal)
    shown = b""
    while select.select([control], [], [], 60)[0]:
        try:
            shown += os.read(control, 65536)
        except OSError:  # the other end is closed
            break
    os.close(control)
    assert process.wait() == 0, shown.decode()
    return shown.decode()


def in_pipe(redis: RedisServer, *arguments: object) -> subprocess.CompletedProcess[str]:
    env = {**os.environ, "LABELMILL_BROKER_URL": redis.broker_url}
    command = [sys.executable, "-m", "producer", *map(str, arguments)]
    return subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, check=True)


def test_on_a_terminal_there_is_a_bar_and_in_a_pipe_there_are_lines(redis: RedisServer, photos: Path) -> None:
    shown = in_terminal(redis, "submit", photos, "--model", "noop", "--job-id", "seen")
    assert "\x1b[" in shown
    assert "━" in shown, "a bar"
    assert "seen" in shown
    piped = in_pipe(redis, "submit", photos, "--model", "noop")
    assert "\x1b" not in piped.stdout + piped.stderr
    assert piped.stderr.splitlines()[-1].startswith("3/3, 0 failed")


def test_every_command_is_at_home_on_a_terminal(redis: RedisServer, photos: Path, tmp_path: Path) -> None:
    labelmill(redis, "submit", photos, "--model", "noop", "--job-id", "seen")
    idle_worker(redis)
    out = tmp_path / "out.csv"
    expected: tuple[tuple[list[str], str], ...] = (
        (["jobs"], "seen"),
        (["models"], "noop"),
        (["workers"], "READY"),
        (["status", "seen"], "ended"),
        (["status", "seen", "--json"], '"state": "ended"'),
        (["results", "seen"], '"custom_id":"a.jpg"'),
        (["results", "seen", "--follow", "--output", str(out)], "3 results written"),
        (["audit", "seen"], "balanced"),
        (["retry", "seen"], "nothing to run again"),
        (["cancel", "seen"], "had ended"),
        (["dead-letters", "list", "seen"], "custom_id"),
        (["delete", "seen"], "deleted: seen"),
    )
    said = shown_by(redis, ["-c", SEVERAL, json.dumps([words for words, _ in expected])]).split("\x1e")
    for (words, wanted), shown in zip(expected, said[:-1], strict=True):
        assert wanted in shown, words


def test_on_a_narrow_terminal_an_id_stays_whole_and_results_stand_alone(redis: RedisServer, photos: Path) -> None:
    job = labelmill(redis, "submit", photos, "--model", "noop").out.strip()
    assert job in in_terminal(redis, "jobs", columns=60)
    shown = in_terminal(redis, "results", job, "--follow", "--format", "csv")
    rows = shown.replace("\r", "").splitlines()
    assert [row.partition(",")[0] for row in rows if "noop" in row] == ["a.jpg", "sub/b.png", "sub/c.jpg"]
    assert any(row.startswith("custom_id,status,") for row in rows), rows


def test_watch_ends_with_the_job_on_a_terminal_and_in_a_pipe(redis: RedisServer, photos: Path) -> None:
    labelmill(redis, "submit", photos, "--model", "noop", "--job-id", "seen")
    assert "ended" in in_terminal(redis, "status", "seen", "--watch")
    piped = in_pipe(redis, "status", "seen", "--watch", "--json")
    assert [json.loads(line)["state"] for line in piped.stdout.splitlines()] == ["ended"]


def test_a_reader_that_goes_away_is_no_error_of_ours(redis: RedisServer) -> None:
    client = Labelmill(settings=redis.settings)
    job = client.submit([Item(f"{n}.jpg", f"/{n}.jpg") for n in range(5000)], model="noop")
    job.wait()
    command = f"{sys.executable} -m producer results {job.id} | head -n 1"
    env = {**os.environ, "LABELMILL_BROKER_URL": redis.broker_url}
    done = subprocess.run(["bash", "-c", command], cwd=ROOT, env=env, capture_output=True, text=True, check=True)
    assert json.loads(done.stdout)["status"] == "succeeded"
    assert "Traceback" not in done.stderr


def test_uploads_and_references_may_stand_in_one_job(redis: RedisServer) -> None:
    client = Labelmill(settings=redis.settings)
    job = client.submit([Item("a", "/a.jpg"), Upload("b", b"bytes", {"n": 1})], model="noop")
    assert job.wait().request_counts["succeeded"] == 2
    assert {r.custom_id: r.fields for r in job.results()} == {"a": None, "b": {"n": 1}}
