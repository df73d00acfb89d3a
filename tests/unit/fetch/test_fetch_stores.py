"""Images in object stores: a real S3 server on this machine, and fsspec's own store in memory."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from typing import Any

import boto3
import fsspec
import pytest
from moto.server import ThreadedMotoServer

from jobs.errors import (
    FetchFailedError,
    FetchTimeoutError,
    ForbiddenError,
    NotFoundError,
    TooLargeError,
    UsageError,
)
from worker.fetch import Fetcher

IMAGE = b"the bytes of an image"


@pytest.fixture(scope="module")
def endpoint() -> Iterator[str]:
    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture
def environment(endpoint: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """As an operator says where the store is, and who the worker is."""
    for name, value in {
        "AWS_ENDPOINT_URL": endpoint,
        "AWS_ACCESS_KEY_ID": "worker",
        "AWS_SECRET_ACCESS_KEY": "secret",
        "AWS_DEFAULT_REGION": "us-east-1",
    }.items():
        monkeypatch.setenv(name, value)


@pytest.fixture
def bucket(environment: None, endpoint: str) -> Iterator[Any]:
    client = boto3.client("s3", endpoint_url=endpoint)
    client.create_bucket(Bucket="photos")
    for key, body in {"cats/tom 1.jpg": IMAGE, "private/key": b"secret", "empty": b""}.items():
        client.put_object(Bucket="photos", Key=key, Body=body)
    yield client
    fsspec.filesystem("s3").clear_instance_cache()
    client.close()


@pytest.fixture
def fetcher() -> Fetcher:
    return Fetcher(url_hosts=("example.org", "s3://photos"), sleep=lambda _: None)


def test_an_object_is_fetched_by_its_url(bucket: Any, fetcher: Fetcher) -> None:
    assert fetcher.fetch("s3://photos/cats/tom 1.jpg") == IMAGE


def test_an_object_that_is_new_is_seen(bucket: Any, fetcher: Fetcher) -> None:
    fetcher.fetch("s3://photos/cats/tom 1.jpg")
    with pytest.raises(NotFoundError):
        fetcher.fetch("s3://photos/cats/new.jpg")
    bucket.put_object(Bucket="photos", Key="cats/new.jpg", Body=b"new")
    assert fetcher.fetch("s3://photos/cats/new.jpg") == b"new"


def test_an_empty_object_is_empty(bucket: Any, fetcher: Fetcher) -> None:
    assert fetcher.fetch("s3://photos/empty") == b""


def test_an_object_over_the_limit_is_too_large(bucket: Any) -> None:
    assert Fetcher(url_hosts=("s3://photos",), max_bytes=len(IMAGE)).fetch("s3://photos/cats/tom 1.jpg") == IMAGE
    with pytest.raises(TooLargeError, match=f"{len(IMAGE)} bytes"):
        Fetcher(url_hosts=("s3://photos",), max_bytes=len(IMAGE) - 1).fetch("s3://photos/cats/tom 1.jpg")


def test_a_prefix_can_be_opened_alone(bucket: Any) -> None:
    fetch = Fetcher(url_hosts=("s3://photos/cats/",)).fetch
    assert fetch("s3://photos/cats/tom 1.jpg") == IMAGE
    with pytest.raises(ForbiddenError):
        fetch("s3://photos/private/key")


@pytest.mark.parametrize(
    "ref",
    [
        *("s3://other/key", "s3://photos-private/key", "s3://photos", "S3://photos/cats/tom 1.jpg", "gs://photos/key"),
        *("s3://photos/../other/key", "s3://photos/./key", "s3://photos/x::file:///etc/passwd", "file:///etc/passwd"),
        *("simplecache::s3://photos/x", "filecache::file:///etc/passwd", "memory://photos/x"),
    ],
)
def test_what_is_not_named_is_forbidden_and_not_asked_for(fetcher: Fetcher, ref: str) -> None:
    with pytest.raises(ForbiddenError):
        fetcher.fetch(ref)


def test_a_missing_bucket_is_not_found(bucket: Any) -> None:
    with pytest.raises(NotFoundError):
        Fetcher(url_hosts=("s3://missing",)).fetch("s3://missing/key")


def test_another_store_works_as_well() -> None:
    store = fsspec.filesystem("memory")
    store.pipe_file("/photos/rex.jpg", IMAGE)
    fetch = Fetcher(url_hosts=("memory://photos",)).fetch
    assert fetch("memory://photos/rex.jpg") == IMAGE
    with pytest.raises(NotFoundError):
        fetch("memory://photos/nothing")
    store.rm("/photos", recursive=True)


def test_a_store_that_nobody_knows_says_what_is_missing() -> None:
    with pytest.raises(ForbiddenError, match="no package for nonsense://"):
        Fetcher(url_hosts=("nonsense://photos",)).fetch("nonsense://photos/x")


@pytest.mark.parametrize("host", ["http://example.org", "https://example.org/", "file:///data", "a..b"])
def test_a_host_that_cannot_be_one_stops_the_start(host: str) -> None:
    with pytest.raises(UsageError, match="LABELMILL_URL_HOSTS"):
        Fetcher(url_hosts=(host,))


def test_a_store_that_does_not_answer_is_a_timeout(environment: None, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{server.getsockname()[1]}")
        with pytest.raises(FetchTimeoutError):
            Fetcher(url_hosts=("s3://silent",), timeout_s=0.3).fetch("s3://silent/key")
    fsspec.filesystem("s3").clear_instance_cache()


def test_a_store_that_cannot_be_asked_is_a_failed_fetch(
    environment: None, fetcher: Fetcher, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "nonsense")
    with pytest.raises(FetchFailedError, match="ValueError"):
        fetcher.fetch("s3://photos/key")
    fsspec.filesystem("s3").clear_instance_cache()
