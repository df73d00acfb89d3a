"""Files that :mod:`tests.support.poison_app` takes for images, and jobs of them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from jobs.ledger import JobStatus
from producer.client import Job, Labelmill
from producer.sources import Files
from tests.support.books import Seen
from tests.support.servers import RedisServer

__all__ = ["POISON_APP", "assert_books", "ends_of", "submit", "write_images"]

POISON_APP = "tests.support.poison_app"


def write_images(folder: Path, count: int, special: Mapping[int, str] | None = None) -> list[str]:
    """Good images ``0000.jpg`` and on, but for those that ``special`` names; returns the custom_ids."""
    names = [f"{number:04}.jpg" for number in range(count)]
    for number, name in enumerate(names):
        (folder / name).write_text((special or {}).get(number, "GOOD") + "\n")
    return names


def submit(redis: RedisServer, folder: Path, *, chunk_size: int, job_id: str | None = None) -> Job:
    """A job of a folder's images."""
    client = Labelmill(settings=redis.settings)
    return client.submit(Files([folder]), model="noop", chunk_size=chunk_size, job_id=job_id)


def ends_of(job: Job) -> dict[str, str]:
    """How each image ended, once the job has: ``succeeded`` or the error's code. No image may come twice."""
    ends: dict[str, str] = {}
    for result in job.results():
        assert result.custom_id not in ends, f"{result.custom_id} came twice"
        ends[result.custom_id] = result.error["code"] if result.error else result.status
    return ends


def assert_books(job: Job) -> JobStatus:
    """The job's books add up, no item is outside of them, and no id is there twice; returns its status."""
    audit = job.client.ledger.audit(job.id, first_seen=Seen())
    assert audit.problems == ()
    return audit.status
