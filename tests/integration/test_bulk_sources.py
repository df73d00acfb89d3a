"""Sources with a real worker: an S3 server as source and as target, large archives, images by value."""

from __future__ import annotations

import json
import logging
import random
import shutil
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import s3fs
from moto.server import ThreadedMotoServer

from jobs.errors import SourceError
from producer.client import Labelmill
from producer.sources import Objects, Source, Upload, objects
from tests.support.cli import labelmill
from tests.support.servers import RedisServer, redis_server, worker_process
from worker.export.prepare import prepare

PHOTOS = Path(__file__).resolve().parents[2] / "examples" / "photos"
KEYS = [f"in/{number % 3}/{number:02}.jpg" for number in range(25)]


@pytest.fixture(scope="module")
def served() -> Iterator[RedisServer]:
    """One Redis with a worker of noop for all of these tests."""
    with redis_server() as redis, worker_process(redis, concurrency=1):
        yield redis


@pytest.fixture
def redis(served: RedisServer) -> RedisServer:
    """The Redis, with no job."""
    for job in served.ledger.jobs():
        served.ledger.delete(job)
    return served


@pytest.fixture(scope="module")
def s3_url() -> Iterator[str]:
    """A real S3 server in this process."""
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture
def s3(s3_url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A file system with a bucket of 25 images, found as any program finds it: through the environment."""
    for name, value in (("ACCESS_KEY_ID", "key"), ("SECRET_ACCESS_KEY", "secret"), ("DEFAULT_REGION", "us-east-1")):
        monkeypatch.setenv(f"AWS_{name}", value)
    monkeypatch.setenv("AWS_ENDPOINT_URL", s3_url)
    s3fs.S3FileSystem.clear_instance_cache()
    fs = s3fs.S3FileSystem()
    fs.mkdir("bucket")
    for key in KEYS:
        fs.pipe(f"bucket/{key}", key.encode())
    fs.pipe("bucket/in/notes.txt", b"no image")
    fs.pipe("bucket/inside.jpg", b"not below in/")
    yield fs
    fs.rm("bucket", recursive=True)
    s3fs.S3FileSystem.clear_instance_cache()


def ids(source: Source) -> list[str]:
    return [picture.custom_id for picture in source]


def test_a_prefix_is_listed_page_by_page(s3: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(objects, "PAGE", 7)
    source = Objects("s3://bucket/in")
    assert ids(source) == sorted(key.removeprefix("in/") for key in KEYS)
    assert source.unique
    assert ids(Objects("s3://bucket/in/", alone=False)) == sorted(f"s3://bucket/{key}" for key in KEYS)


def test_a_pattern_and_one_object_are_sources_too(s3: Any) -> None:
    assert ids(Objects("s3://bucket/in/1/*.jpg")) == sorted(key[5:] for key in KEYS if key.startswith("in/1/"))
    assert ids(Objects("s3://bucket/in/notes.txt")) == ["notes.txt"]


@pytest.mark.parametrize("url", ["s3://bucket/none", "s3://nobucket/in"])
def test_what_is_not_there_says_so(url: str, s3: Any) -> None:
    with pytest.raises(SourceError, match=f"cannot read {url}: "):
        ids(Objects(url))


def test_a_store_that_does_not_answer_says_so(s3: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    s3fs.S3FileSystem.clear_instance_cache()
    with pytest.raises(SourceError, match="cannot read s3://bucket/in"):
        ids(Objects("s3://bucket/in"))


def test_images_come_from_a_bucket_and_labels_go_to_one(s3: Any, redis: RedisServer) -> None:
    done = labelmill(redis, "submit", "s3://bucket/in", "--model", "noop", "--job-id", "s3")
    assert done.code == 0, done.err
    for name in ("labels.jsonl", "labels.parquet"):
        written = labelmill(redis, "results", "s3", "--follow", "--output", f"s3://bucket/out/{name}")
        assert written.code == 0, written.err
    lines = [json.loads(line) for line in s3.cat("bucket/out/labels.jsonl").splitlines()]
    assert sorted(line["custom_id"] for line in lines) == sorted(key.removeprefix("in/") for key in KEYS)
    with s3.open("bucket/out/labels.parquet", "rb") as file:
        assert pq.read_table(file).num_rows == len(KEYS)


def test_lists_and_archives_in_a_bucket_are_read_as_on_disk(s3: Any, tmp_path: Path, redis: RedisServer) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("x.jpg", b"X")
    s3.put_file(str(tmp_path / "a.zip"), "bucket/a.zip")
    s3.pipe("bucket/in/list.jsonl", b'{"path": "0/00.jpg", "owner": "ann"}\n')
    client = Labelmill(settings=redis.settings)
    source = client.source(["s3://bucket/a.zip", "s3://bucket/in/list.jsonl"], model="noop")
    assert list(source) == [
        Upload("s3://bucket/a.zip/x.jpg", b"X"),
        Upload("0/00.jpg", b"in/0/00.jpg", {"owner": "ann"}),
    ]


def test_a_target_that_cannot_be_written_leaves_nothing(s3: Any, redis: RedisServer) -> None:
    assert labelmill(redis, "submit", "s3://bucket/in", "--model", "noop", "--job-id", "s3").code == 0
    done = labelmill(redis, "results", "s3", "--output", "s3://nobucket/labels.jsonl")
    assert (done.code, done.err.count("\n")) == (70, 1)
    assert "cannot write s3://nobucket/labels.jsonl" in done.err


def test_a_zip_of_ten_thousand_images_goes_through_by_value(redis: RedisServer, tmp_path: Path) -> None:
    random.seed(5)
    path = tmp_path / "many.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for number in range(10_000):
            archive.writestr(f"{number % 100}/{number:05}.jpg", random.randbytes(300) if number % 2 else b"the same")
    done = labelmill(redis, "submit", path, "--model", "noop", "--job-id", "zip", "--json")
    assert done.code == 0, done.err
    assert done.json["request_counts"]["succeeded"] == 10_000
    assert labelmill(redis, "audit", "zip", "--json").json["balanced"]
    assert not redis.client.exists(redis.ledger.key("zip", "blobs")), "bytes go with the chunks that needed them"
    assert list(tmp_path.iterdir()) == [path], "nothing was unpacked"


def test_images_that_workers_cannot_read_arrive_by_value_with_their_true_labels(
    redis: RedisServer, tmp_path: Path
) -> None:
    """The worker may read one folder only; what lies elsewhere goes as bytes, what is no image fails by itself."""
    inside, outside = tmp_path / "in", tmp_path / "out"
    for folder in (inside, outside):
        folder.mkdir()
        shutil.copy(PHOTOS / "coffee.jpg", folder / "coffee.jpg")
    shutil.copy(PHOTOS / "broken.jpg", outside / "broken.jpg")
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.write(PHOTOS / "coffee.jpg", "zipped.jpg")
    model = prepare("efficientnet-lite0", file_format="onnx")
    with worker_process(redis, model=str(model), concurrency=1, file_roots=[inside]):
        client = Labelmill(settings=redis.settings)
        names = [inside, outside, tmp_path / "a.zip"]
        uploads = sum(isinstance(p, Upload) for p in client.source(names, model="efficientnet-lite0"))
        assert uploads == 3
        found = {r.custom_id: r for r in client.submit(names, model="efficientnet-lite0").results()}
        first = client.submit(outside, model="efficientnet-lite0", cache=True).wait()
        again = client.submit(outside, model="efficientnet-lite0", cache=True)
        assert (first.cache_hits, again.wait().cache_hits) == (0, 1)
        cached = {r.custom_id: r for r in again.results()}
    best = {name: r.labels[0]["label"] for name, r in found.items() if r.labels}
    assert set(best.values()) == {"espresso"}
    assert len(best) == 3
    (broken,) = (r for name, r in found.items() if name.endswith("broken.jpg"))
    assert broken.error is not None
    assert broken.error["code"] == "corrupt_image"
    assert cached["coffee.jpg"].labels == found[f"{tmp_path.as_posix().lstrip('/')}/out/coffee.jpg"].labels
    assert cached["broken.jpg"].status == "failed"
