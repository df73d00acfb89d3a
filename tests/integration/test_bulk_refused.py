"""What is refused before there is a job, or before anything of it is sent, on a real Redis. No worker is needed."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from jobs.errors import InvalidItemError, SourceError, UsageError
from jobs.items import Item
from producer.client import Labelmill
from producer.sources import Pictures
from tests.support.images import write_images


def test_a_repeated_id_is_found_before_the_job_is_made(client: Labelmill) -> None:
    with pytest.raises(SourceError, match="twice"):
        client.submit([Item("a", "/a"), Item("a", "/b")], model="noop", job_id="new")
    assert client.jobs() == []


@pytest.mark.parametrize(
    ("argument", "value"),
    [
        *[("top_k", value) for value in ("x", 2.5, 0, -1, True, None, 10**400)],
        *[("expires_s", value) for value in (-1, 0, "soon", math.nan, math.inf, 1e306)],
        ("retention_s", -1),
        *[("digest", value) for value in ("zz", "sha256:abc", None)],
        *[("metadata", value) for value in ("x", {"n": 1}, {"\ud800": "n"})],
        *[("chunk_size", value) for value in (0, -1, 2.5, True)],
        ("by", "magic"),
        *[("model", value) for value in ("", 7)],
    ],
)
def test_an_argument_that_no_job_can_have_is_refused_before_there_is_a_job(
    client: Labelmill, tmp_path: Path, argument: str, value: object
) -> None:
    write_images(tmp_path, 1)
    with pytest.raises(UsageError, match=argument):
        client.submit(tmp_path, **{"model": "noop", argument: value})
    assert client.jobs() == []


@pytest.mark.parametrize(
    "bad",
    [
        Item("a\x1b", "/a"),
        Item("", "/a"),
        Item("a", "/a\n"),
        Item("a", ""),
        Item("a" * 1025, "/a"),
        Item("a", "/" * 4097),
    ],
)
def test_what_cannot_be_carried_is_never_sent(client: Labelmill, bad: Item) -> None:
    job = client.open("noop", job_id="bad", top_k=5)
    with pytest.raises(InvalidItemError):
        job.send(Pictures([Item("good", "/good"), bad]))
    assert job.status().request_counts["total"] == 0
