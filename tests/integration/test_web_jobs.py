"""Jobs over HTTP, through a real gunicorn, a real Redis and a real worker of the noop model."""

from __future__ import annotations

import csv
import io
import json
import os
import threading
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
import requests

from tests.support.gateway import GatewayProcess, gateway
from tests.support.servers import WorkerProcess, eventually, redis_server, worker_process


@pytest.fixture(scope="module")
def web() -> Iterator[GatewayProcess]:
    """A gateway with its embedded pair."""
    with gateway() as process:
        yield process


@pytest.fixture(scope="module")
def pair() -> Iterator[tuple[GatewayProcess, WorkerProcess]]:
    """A gateway and a worker of its own Redis."""
    with redis_server() as redis, worker_process(redis) as worker, gateway(redis=redis) as process:
        yield process, worker


@pytest.fixture
def paused(pair: tuple[GatewayProcess, WorkerProcess]) -> Iterator[tuple[GatewayProcess, WorkerProcess]]:
    """A gateway whose worker is stopped until it is told to go on."""
    pair[1].pause()
    yield pair
    pair[1].resume()


def pictures(count: int, *, size: int = 10) -> list[tuple[str, tuple[str, bytes, str]]]:
    """Form files named 0.jpg, 1.jpg, ..., each with bytes of its own."""
    return [("files", (f"{n}.jpg", f"{n:08}".encode() + b"x" * (size - 8), "image/jpeg")) for n in range(count)]


def submit(web: GatewayProcess, count: int = 3, **options: Any) -> dict[str, Any]:
    """A job of so many pictures."""
    answer = web.post("/v1/jobs", files=pictures(count), **options)
    assert answer.status_code == 201, answer.text
    return dict(answer.json())


def ended(web: GatewayProcess, job: str) -> dict[str, Any]:
    """The job, when it has ended."""

    def look() -> dict[str, Any] | None:
        found = web.get(f"/v1/jobs/{job}").json()
        return found if found["state"] == "ended" else None

    return eventually(look, what=f"{job} ends") or {}


def lines(answer: requests.Response) -> list[dict[str, Any]]:
    """The JSON Lines of an answer."""
    assert answer.status_code == 200, answer.text
    assert answer.headers["Content-Type"] == "application/x-ndjson"
    return [json.loads(line) for line in answer.text.splitlines()]


def events(answer: requests.Response) -> Iterator[tuple[str, str, Any]]:
    """Name, id and data of each server-sent event."""
    name, cursor = "message", ""
    for line in answer.iter_lines(chunk_size=1, decode_unicode=True):
        key, _, value = line.partition(": ")
        if key == "event":
            name = value
        elif key == "id":
            cursor = value
        elif key == "data":
            yield name, cursor, json.loads(value)


def test_a_form_of_many_files_is_a_job_with_a_result_for_each(web: GatewayProcess) -> None:
    made = web.post("/v1/jobs", files=pictures(50), data={"top_k": "2", "metadata": '{"owner": "me"}'})
    assert made.status_code == 201
    job = made.json()
    assert made.headers["Location"] == f"/v1/jobs/{job['id']}"
    assert job["request_counts"]["total"] == 50
    done = ended(web, job["id"])
    assert done["request_counts"] == {**dict.fromkeys(job["request_counts"], 0), "total": 50, "succeeded": 50}
    assert done["metadata"] == {"owner": "me"}
    assert done["expires_at"] > done["created_at"]
    results = lines(web.get(f"/v1/jobs/{job['id']}/results"))
    assert sorted(result["custom_id"] for result in results) == sorted(f"{n}.jpg" for n in range(50))
    assert {len(result["labels"]) for result in results} == {2}


def zipped(names: list[str]) -> bytes:
    """A zip of tiny files."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for name in names:
            archive.writestr(name, name.encode())
    return file.getvalue()


def test_an_archive_stands_for_the_images_in_it(web: GatewayProcess) -> None:
    body = zipped(["a/1.jpg", "a/2.png", "notes.txt", "__MACOSX/1.jpg"])
    made = web.post("/v1/jobs?top_k=1", data=body, headers={"Content-Type": "application/zip"}).json()
    ended(web, made["id"])
    found = {line["custom_id"] for line in lines(web.get(f"/v1/jobs/{made['id']}/results"))}
    assert found == {"a/1.jpg", "a/2.png"}


def test_an_archive_among_files_puts_its_name_before_theirs(web: GatewayProcess) -> None:
    files = [*pictures(1), ("files", ("more.zip", zipped(["0.jpg"]), "application/zip"))]
    made = web.post("/v1/jobs", files=files).json()
    ended(web, made["id"])
    found = {line["custom_id"] for line in lines(web.get(f"/v1/jobs/{made['id']}/results"))}
    assert found == {"0.jpg", "more.zip/0.jpg"}


URLS = [{"url": "https://example.org/1.jpg", "custom_id": "one", "owner": 3}, {"url": "https://example.org/2.jpg"}]


@pytest.mark.parametrize("form", ["json", "lines"])
def test_urls_come_as_json_or_as_json_lines_with_fields_of_their_own(web: GatewayProcess, form: str) -> None:
    if form == "json":
        made = web.post("/v1/jobs", json={"items": URLS, "top_k": 1, "metadata": {"a": "b"}})
    else:
        body = "\n".join(map(json.dumps, URLS))
        made = web.post("/v1/jobs?top_k=1", data=body, headers={"Content-Type": "application/x-ndjson"})
    assert made.status_code == 201, made.text
    ended(web, made.json()["id"])
    one, two = lines(web.get(f"/v1/jobs/{made.json()['id']}/results"))
    assert (one["custom_id"], one["fields"]) == ("one", {"owner": 3})
    assert two["custom_id"] == "https://example.org/2.jpg"


@pytest.mark.parametrize(
    ("options", "status", "code"),
    [
        ({"files": pictures(1) + pictures(1)}, 422, "source_error"),
        ({"files": [("other", ("a.jpg", b"x"))], "params": {"top_k": "0"}}, 422, "bad_option"),
        ({"data": {"top_k": "1"}, "files": [("files", ("a.jpg", b"x"))], "params": {"nothing": "1"}}, 400, None),
        ({"data": b"PK no zip", "headers": {"Content-Type": "application/zip"}}, 422, "source_error"),
        ({"data": zipped(["notes.txt"]), "headers": {"Content-Type": "application/zip"}}, 422, "source_error"),
        ({"data": b"GIF89a", "headers": {"Content-Type": "image/gif"}}, 415, "unsupported_media_type"),
        ({"json": {"items": []}}, 422, "no_images"),
        ({"json": {"items": [{"url": "file:///etc/passwd"}]}}, 422, "bad_item"),
        ({"json": {"items": [{"path": "/etc/passwd"}]}}, 422, "bad_item"),
        ({"json": {"items": URLS, "model": "nobody"}}, 404, "model_not_served"),
        ({"json": {"items": URLS, "metadata": {"a": 1}}}, 422, "bad_option"),
        ({"json": {"items": URLS, "secret": 1}}, 422, "bad_option"),
        ({"json": {"items": URLS, "top_k": 2}, "params": {"top_k": "1"}}, 422, "bad_option"),
        ({"data": b"{", "headers": {"Content-Type": "application/json"}}, 400, "bad_json"),
        ({"data": b'{"path": "/etc/passwd"}', "headers": {"Content-Type": "application/x-ndjson"}}, 422, "bad_item"),
        ({"data": b"no form", "headers": {"Content-Type": "multipart/form-data; boundary=b"}}, 400, "bad_request"),
        ({"json": {"items": URLS}, "headers": {"Idempotency-Key": "k" * 300}}, 400, "bad_idempotency_key"),
    ],
)
def test_what_makes_no_job_has_a_code_and_makes_none(
    web: GatewayProcess, options: dict[str, Any], status: int, code: str | None
) -> None:
    before = web.get("/v1/jobs?limit=200").json()["jobs"]
    answer = web.post("/v1/jobs", **options)
    assert answer.status_code == status, answer.text
    problem = answer.json()
    assert code in (None, problem["code"])
    assert problem["status"] == status
    assert answer.headers["Content-Type"] == "application/problem+json"
    assert web.get("/v1/jobs?limit=200").json()["jobs"] == before


def test_a_repeat_with_the_same_key_is_the_same_job(web: GatewayProcess) -> None:
    key = {"Idempotency-Key": "the key"}
    first = web.post("/v1/jobs", files=pictures(3), headers=key)
    again = web.post("/v1/jobs", files=pictures(3), headers=key)
    assert (first.status_code, again.status_code) == (201, 200)
    assert first.json()["id"] == again.json()["id"]
    assert again.headers["Idempotency-Replayed"] == "true"
    assert again.json()["request_counts"]["total"] == 3
    other = web.post("/v1/jobs", files=pictures(4), headers=key)
    assert (other.status_code, other.json()["code"]) == (422, "idempotency_mismatch")


def test_the_same_key_at_the_same_time_is_one_job(web: GatewayProcess) -> None:
    answers: list[requests.Response] = []
    headers = {"Idempotency-Key": "at once"}
    threads = [
        threading.Thread(target=lambda: answers.append(web.post("/v1/jobs", files=pictures(200), headers=headers)))
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {answer.status_code for answer in answers} == {200, 201}
    assert len({answer.json()["id"] for answer in answers}) == 1
    assert ended(web, answers[0].json()["id"])["request_counts"]["succeeded"] == 200


def test_the_list_is_newest_first_and_goes_on_where_it_was(web: GatewayProcess) -> None:
    made = [submit(web)["id"] for _ in range(3)]
    page = web.get("/v1/jobs?limit=2").json()
    assert [job["id"] for job in page["jobs"]] == made[:0:-1]
    rest = web.get(f"/v1/jobs?limit=1&after={page['next']}").json()
    assert [job["id"] for job in rest["jobs"]] == made[:1]


def test_results_go_on_after_any_line(web: GatewayProcess) -> None:
    job = submit(web, 7)["id"]
    ended(web, job)
    whole = lines(web.get(f"/v1/jobs/{job}/results"))
    assert len(whole) == 7
    for number, line in enumerate(whole, start=1):
        assert lines(web.get(f"/v1/jobs/{job}/results?after={line['cursor']}")) == whole[number:]
        assert lines(web.get(f"/v1/jobs/{job}/results?limit={number}")) == whole[:number]


def test_results_come_as_csv_and_as_a_download(web: GatewayProcess) -> None:
    job = submit(web, 2)["id"]
    ended(web, job)
    answer = web.get(f"/v1/jobs/{job}/results?format=csv&download=true")
    header, *rows = answer.text.splitlines()
    assert header.startswith("custom_id,status,label_1")
    assert len(rows) == 2
    assert answer.headers["Content-Disposition"] == f'attachment; filename="{job}-results.csv"'


def test_no_cell_of_a_csv_is_a_formula(web: GatewayProcess) -> None:
    names = ["=cmd|' /C calc'!A0.jpg", "+1.jpg", "-1.jpg", "@SUM(1).jpg", "plain.jpg"]
    job = web.post("/v1/jobs", files=[("files", (name, b"x")) for name in names]).json()["id"]
    ended(web, job)
    rows = list(csv.reader(io.StringIO(web.get(f"/v1/jobs/{job}/results?format=csv").text)))[1:]
    assert [row[0] for row in rows] == [f"'{name}" for name in names[:-1]] + ["plain.jpg"]
    assert [line["custom_id"] for line in lines(web.get(f"/v1/jobs/{job}/results"))] == names


def test_results_can_be_followed_to_the_end(paused: tuple[GatewayProcess, WorkerProcess]) -> None:
    web, worker = paused
    job = submit(web, 20)["id"]
    assert lines(web.get(f"/v1/jobs/{job}/results")) == []
    with web.get(f"/v1/jobs/{job}/results?follow=true", stream=True) as answer:
        assert answer.headers["Labelmill-Job-State"] == "in_progress"
        worker.resume()
        assert sum(1 for _ in answer.iter_lines()) == 20


def test_events_tell_of_progress_and_of_the_end(paused: tuple[GatewayProcess, WorkerProcess]) -> None:
    web, worker = paused
    job = submit(web, 20)["id"]
    with web.get(f"/v1/jobs/{job}/events?results=true", stream=True) as answer:
        told = events(answer)
        name, _, data = next(told)
        assert (name, data["request_counts"]["queued"]) == ("progress", 20)
        worker.resume()
        rest = list(told)
    assert sum(len(data) for name, _, data in rest if name == "results") == 20
    assert rest[-1][0] == "ended"
    assert rest[-1][2]["request_counts"]["succeeded"] == 20
    cursor = next(cursor for name, cursor, _ in rest if name == "results")
    again = events(web.get(f"/v1/jobs/{job}/events?results=true", headers={"Last-Event-ID": cursor}, stream=True))
    left = 20 - len(next(data for name, _, data in rest if name == "results"))
    assert sum(len(data) for name, _, data in again if name == "results") == left
    wrong = web.get(f"/v1/jobs/{job}/events?after=here", headers={"Last-Event-ID": cursor})
    assert (wrong.status_code, wrong.json()["code"]) == (422, "bad_cursor")


def test_a_job_is_cancelled_and_its_images_are_among_the_errors(paused: tuple[GatewayProcess, WorkerProcess]) -> None:
    web, worker = paused
    job = submit(web, 20)["id"]
    cancelled = web.post(f"/v1/jobs/{job}/cancel").json()
    assert cancelled["request_counts"]["cancelled"] == 20
    assert cancelled["state"] == "ended"
    errors = lines(web.get(f"/v1/jobs/{job}/errors"))
    assert {error["status"] for error in errors} == {"cancelled"}
    assert len(errors) == 20
    assert web.post(f"/v1/jobs/{job}/cancel").status_code == 200
    worker.resume()


def test_a_job_is_deleted_when_it_has_ended_or_by_force(paused: tuple[GatewayProcess, WorkerProcess]) -> None:
    web, _ = paused
    job = submit(web, 5)["id"]
    assert web.request("DELETE", f"/v1/jobs/{job}").status_code == 409
    with web.get(f"/v1/jobs/{job}/events", stream=True) as answer:
        told = events(answer)
        next(told)
        assert web.request("DELETE", f"/v1/jobs/{job}?force=true").status_code == 204
        assert [name for name, _, _ in told][-1] == "deleted"
    assert web.get(f"/v1/jobs/{job}").status_code == 404
    assert web.request("DELETE", f"/v1/jobs/{job}").status_code == 404


def test_what_to_retry_is_read_also_from_a_body_whose_size_is_not_said(web: GatewayProcess) -> None:
    job = submit(web)["id"]
    ended(web, job)
    retry = f"/v1/jobs/{job}/retry"
    assert web.post(retry).json()["retried"] == 0
    assert web.post(retry, data=iter([b'{"code": "corrupt_image"}'])).status_code == 200
    assert web.post(retry, data=iter([b'{"codes": "corrupt_image"}'])).status_code == 422


@pytest.mark.parametrize("path", ["", "/results", "/errors", "/events"])
def test_a_job_that_is_not_there_is_not_found(web: GatewayProcess, path: str) -> None:
    for job in ("job-0000000000000000", "..%2f..%2fetc%2fpasswd", "%00", "a" * 300):
        answer = web.get(f"/v1/jobs/{job}{path}")
        assert answer.status_code == 404
        assert answer.json()["status"] == 404


@pytest.mark.parametrize("query", ["after=1", "after=1-1-1", "limit=0", "format=xml", "follow=yes", "limit=1&limit=2"])
def test_a_query_that_makes_no_sense_is_refused(web: GatewayProcess, query: str) -> None:
    job = submit(web, 1)["id"]
    assert web.get(f"/v1/jobs/{job}/results?{query}").status_code in (400, 422)


def test_bodies_and_files_have_limits_also_when_their_size_is_not_said() -> None:
    limits = {"LABELMILL_WEB_MAX_BODY": "100K", "LABELMILL_WEB_MAX_FILES": "5", "LABELMILL_MAX_BYTES": "1000"}
    with gateway(env=limits) as web:
        accepted = web.post("/v1/jobs", files=pictures(5))
        assert accepted.status_code == 201
        ended(web, accepted.json()["id"])  # or it would end while the others are looked at
        too_many = web.post("/v1/jobs", files=pictures(6))
        assert (too_many.status_code, too_many.json()["code"]) == (413, "too_many_files")
        too_large = web.post("/v1/jobs", files=pictures(1, size=1001))
        assert (too_large.status_code, too_large.json()["code"]) == (413, "too_large")
        whole = web.post("/v1/jobs", files=pictures(1, size=200_000))
        assert (whole.status_code, whole.json()["code"]) == (413, "too_large")
        unsaid = web.post("/v1/jobs", data=iter([b"x" * 1000] * 200), headers={"Content-Type": "application/zip"})
        assert (unsaid.status_code, unsaid.json()["code"]) == (413, "too_large")
        before = web.get("/v1/jobs").json()
        for key in ({}, {"Idempotency-Key": "a bomb"}):  # no repeat can go on with it: nothing is left of it
            headers = {"Content-Type": "application/zip", **key}
            bomb = web.post("/v1/jobs", data=_bomb(500), headers=headers)
            assert (bomb.status_code, bomb.json()["code"]) == (413, "too_large")
            assert web.get("/v1/jobs").json() == before


def _bomb(count: int) -> bytes:
    """An archive of so many files of a thousand zeros."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for number in range(count):
            archive.writestr(f"{number}.jpg", bytes(1000))
    return file.getvalue()


def test_an_upload_is_never_held_whole_in_memory(web: GatewayProcess) -> None:
    one_megabyte, count = 1 << 20, 120
    gateways = [child for child in psutil.Process(web.pid).children() if "gateway" in " ".join(child.cmdline())]
    assert gateways
    for child in gateways:
        Path(f"/proc/{child.pid}/clear_refs").write_text("5")  # the peak is counted from here on

    def peak() -> int:
        return sum(_peak(child.pid) for child in gateways)

    def form() -> Iterator[bytes]:
        for number in range(count):
            yield b'--b\r\nContent-Disposition: form-data; name="files"; filename="%d.jpg"\r\n\r\n' % number
            yield os.urandom(one_megabyte)
            yield b"\r\n"
        yield b"--b--\r\n"

    before = peak()
    made = web.post("/v1/jobs", data=form(), headers={"Content-Type": "multipart/form-data; boundary=b"})
    assert made.status_code == 201, made.text
    assert ended(web, made.json()["id"])["request_counts"]["succeeded"] == count
    assert peak() - before < count * one_megabyte / 2


def _peak(pid: int) -> int:
    """The most memory that a process has ever had, in bytes."""
    with open(f"/proc/{pid}/status") as status:
        return next(int(line.split()[1]) * 1024 for line in status if line.startswith("VmHWM"))
