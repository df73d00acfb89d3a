"""Where a fault strikes Labelmill: a real Redis, a crew of real workers, and jobs that real producers send."""

from __future__ import annotations

import shutil
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.chaos.crew import Crew, dismissed
from tests.chaos.diary import Reader
from tests.support.far import served
from tests.support.servers import ProcessGroup, RedisServer, WorkerProcess, eventually, redis_server

__all__ = ["BY", "END_S", "Job", "Site", "site"]

#: How images travel; jobs take turns. By URL they come from a server of this process, and workers fetch them ahead.
BY = ("reference", "value", "url")
#: Processes of each worker.
PROCESSES = 2
#: Seconds until everything of a site must be sent, and have ended, once nothing strikes it any more.
END_S = 300.0


def _write_images(folder: Path, count: int, kinds: Mapping[int, str]) -> None:
    """Files that the workers take for images, each with bytes of its own."""
    folder.mkdir()
    for number in range(count):
        name = f"{number:05}.jpg"
        (folder / name).write_text(f"{kinds.get(number, 'GOOD')} {name}\n")


@dataclass(frozen=True)
class Job:
    """One call of ``labelmill submit``."""

    id: str
    command: list[str]
    submit: ProcessGroup


class Site:
    """Made by :func:`site`."""

    def __init__(self, redis: RedisServer, folder: Path, crew: Crew, images: Path, chunk: int, url: str) -> None:
        self.redis = redis
        self.folder = folder
        self.crew = crew
        self.images = images
        self.names = sorted(path.name for path in images.iterdir())
        self.diary = Reader(folder / "diary")
        self.jobs: list[Job] = []
        self._chunk = chunk
        self._list = folder / "urls.csv"
        self._list.write_text("".join(["custom_id,url\n", *(f"{name},{url}/{name}\n" for name in self.names)]))

    def submit(self, by: str) -> Job:
        """Send all images as a job, with the real command in a process of its own; does not wait."""
        name = f"job-{len(self.jobs)}"
        what, way = (self._list, "reference") if by == "url" else (self.images, by)
        command = [sys.executable, "-m", "producer", "submit", str(what), "--model", "noop", "--job-id", name]
        command += ["--by", way, "--chunk-size", str(self._chunk), "--force", "--detach"]
        job = Job(name, command, self.run(command))
        self.jobs.append(job)
        return job

    def run(self, command: list[str]) -> ProcessGroup:
        """A command on this Redis."""
        env = {"LABELMILL_BROKER_URL": self.redis.broker_url}
        return ProcessGroup(command, log=self.folder / "producers.log", env=env)

    def top_up(self) -> int:
        """A job more where little is left to do; the images of all jobs by now."""
        if all(job.submit.process.poll() is not None for job in self.jobs) and self.open() < len(self.names):
            self.submit(BY[len(self.jobs) % len(BY)])
        return len(self.jobs) * len(self.names)

    def open(self) -> int:
        """Images that have not ended, of all jobs that are there."""
        statuses = self.redis.ledger.statuses([job.id for job in self.jobs])
        return sum(status.request_counts["queued"] + status.request_counts["leased"] for status in statuses)

    def are_known(self) -> bool:
        """Whether every producer has found Redis: its job is there. One that finds none says so, and ends."""
        return len(self.redis.ledger.statuses([job.id for job in self.jobs])) == len(self.jobs)

    def wait(self) -> None:
        """Until every job has ended, with all of its images accepted."""
        for job in self.jobs:
            assert job.submit.wait(END_S) == 0, (self.folder / "producers.log").read_text()
        eventually(self._has_ended, END_S, what="all jobs have ended")

    def _has_ended(self) -> bool:
        self.crew.keep_up()
        statuses = self.redis.ledger.statuses([job.id for job in self.jobs])
        return len(statuses) == len(self.jobs) and all(status.ended for status in statuses)


@contextmanager
def site(
    images: int,
    *,
    chunk: int,
    item_s: float,
    workers: int,
    aof: bool = False,
    kinds: Mapping[int, str] | None = None,
    env: Mapping[str, str] | None = None,
) -> Iterator[Site]:
    """A site for the block, its crew ready; ``item_s`` is what an image takes, ``images`` those of each job."""
    folder = Path(tempfile.mkdtemp(prefix="lm-chaos-"))
    pictures = folder / "images"
    _write_images(pictures, images, kinds or {})
    command = [sys.executable, "-m", "tests.chaos.worker", "serve", "--model", "noop", "--log-level", "INFO"]
    command += ["--concurrency", str(PROCESSES), "--file-roots", str(pictures)]
    try:
        with redis_server(aof=aof) as redis, served(pictures) as address:
            values = {"CHAOS_DIARY": str(folder / "diary"), "POISON_ITEM_S": str(item_s), **(env or {})}
            values["LABELMILL_URL_HOSTS"] = address

            def enlist(log: Path) -> ProcessGroup:
                return WorkerProcess(redis, command, log=log, env=values)

            with dismissed(Crew(workers, enlist, folder, ready="READY:")) as crew:
                crew.wait_ready()
                made = Site(redis, folder, crew, pictures, chunk, f"http://{address}")
                try:
                    yield made
                finally:
                    for job in made.jobs:
                        job.submit.kill9()
    finally:
        shutil.rmtree(folder, ignore_errors=True)
