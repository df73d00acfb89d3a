"""What a bulk job costs its producer and its Redis, printed as a table.

    .venv/bin/python -m benchmarks.bulk_submit [--items 1000000]

One million images by reference for the ``noop`` model, on a Redis of its own. Sending is measured alone, without a
worker, each source in a process of its own: images/s by wall clock and by the producer's own processor time (one core),
and its peak memory beside that of 10,000. Then a job of 20 times the backlog limit is sent until its producer waits, a
worker is started, and the length of the queue is looked at until the end; then ``status`` is timed on it.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from benchmarks.stack import running, running_redis, timed, until, used_memory
from jobs.items import Item
from jobs.settings import Settings
from producer.client import Labelmill
from producer.sources import Manifest, Picture, Source

#: Images of a ticket where no worker has said how fast it is: what a noop worker would get.
CHUNK = 512
#: The job of the second part is so many times its backlog limit.
TIMES_LIMIT = 20
#: Looks at the state of a job.
LOOKS = 200


class Synthetic:
    """Images by reference, made as they are asked for, and all there, as in a folder; their ids do not repeat."""

    base = "/data"
    unique = True

    def __init__(self, count: int) -> None:
        self.count = count

    def __iter__(self) -> Iterator[Picture]:
        for number in range(self.count):
            name = f"photos/{number:08}.jpg"
            yield Item(name, f"/data/{name}")

    def ids(self) -> Iterator[tuple[str, str]]:
        """Each custom_id with its place."""
        for picture in self:
            yield picture.custom_id, picture.custom_id


def main() -> int:
    """Measure, and print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--items", type=int, default=1_000_000)
    parser.add_argument("--send", nargs=2, metavar=("SOURCE", "BROKER"), help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.send:
        source, broker = args.send
        print(json.dumps(send(source, broker, args.items)))
        return 0
    with tempfile.TemporaryDirectory(prefix="labelmill-bench-") as folder:
        sending(Path(folder), args.items)
        working(Path(folder), args.items)
    return 0


def send(source: str, broker: str, count: int) -> dict[str, float]:
    """Send one job in this process; returns what it cost."""
    client = Labelmill(broker)
    client.bell.ring("warm.bulk")
    images: Source = Synthetic(count) if source == "made as asked for" else Manifest(source)
    wall, cpu = time.perf_counter(), time.process_time()
    client.submit(images, model="noop", chunk_size=CHUNK)
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    return {"wall_s": wall, "cpu_s": cpu, "rss_kib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss}


def sending(folder: Path, count: int) -> None:
    """The first part: no worker."""
    small, large = folder / "small.txt", folder / "large.txt"
    for path, lines in ((small, 10_000), (large, count)):
        with path.open("w") as file:
            file.writelines(f"photos/{number:08}.jpg\n" for number in range(lines))
    print(f"{'sending':<44}{'images/s':>12}{'per core':>12}{'peak RSS':>12}{'than 10,000':>14}{'Redis B/image':>15}")
    for name, few, many in (
        ("made as asked for", "made as asked for", "made as asked for"),
        ("text manifest, ids compared first", str(small), str(large)),
    ):
        with running_redis() as url:
            before = measured(few, url, 10_000)
        with running_redis() as url:
            client = Labelmill(url)
            empty = used_memory(client)
            cost = measured(many, url, count)
            bytes_each = (used_memory(client) - empty) / count
        more = (cost["rss_kib"] - before["rss_kib"]) / 1024
        print(
            f"{name:<44}{count / cost['wall_s']:>12,.0f}{count / cost['cpu_s']:>12,.0f}"
            f"{cost['rss_kib'] / 1024:>8.0f} MiB{more:>+10.1f} MiB{bytes_each:>15.1f}"
        )


def measured(source: str, url: str, count: int) -> dict[str, float]:
    """:func:`send` in a process of its own."""
    command = [sys.executable, "-m", "benchmarks.bulk_submit", "--items", str(count), "--send", source, url]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    result: dict[str, float] = json.loads(done.stdout)
    return result


def working(folder: Path, count: int) -> None:
    """The second part: a worker, and a backlog limit that the job is many times of."""
    limit = count // TIMES_LIMIT
    with running_redis() as url:
        client = Labelmill(settings=replace(Settings(), broker_url=url, backlog_limit=limit))
        empty, peak = used_memory(client), Peak(client)
        job = client.open("noop", job_id="bench", top_k=5)
        sender = job.sender(chunk_size=CHUNK)
        with peak:
            sender.start(Synthetic(count), checked=True)
            until(lambda: sender.waiting, "a deep backlog")
            command = [sys.executable, "-m", "worker", "serve", "--model", "noop", "--concurrency", "1"]
            with running(command, log=folder / "worker.log", env={"LABELMILL_BROKER_URL": url}):
                until(client.models, "a worker")
                started, before = time.perf_counter(), job.status().done
                job.wait()
                took = time.perf_counter() - started
                assert sender.join(0.0)
        stored = used_memory(client) - empty
        looks = [timed(job.status) for _ in range(LOOKS)]
        command = [sys.executable, "-m", "producer", "status", "bench", "--json", "--broker", url]
        whole = timed(lambda: subprocess.run(command, check=True, capture_output=True))
    print()
    print(f"a job of {count:,} images, backlog limit {limit:,}, one worker of noop with one process")
    print(
        f"  from the worker's start to the last result       {took:10.1f} s ({(count - before) / took:,.0f} images/s)"
    )
    print(f"  longest queue                                    {peak.queued:10,} images")
    print(f"  largest queue in Redis (payloads and tickets)    {peak.queue_bytes / 1024:10.0f} KiB")
    print(f"  Redis after it, for each stored top-5 result     {stored / count:10.1f} B")
    print(f"  status, median and slowest of {LOOKS}                {1e3 * statistics.median(looks):10.2f} ms")
    print(f"                                                   {1e3 * max(looks):10.2f} ms")
    print(f"  labelmill status, the whole command              {1e3 * whole:10.0f} ms")


class Peak:
    """Looks at the queue of the job again and again while the block runs."""

    def __init__(self, client: Labelmill) -> None:
        self.queued = self.queue_bytes = 0
        self._client = client
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._loop, daemon=True)

    def __enter__(self) -> Peak:
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._done.set()
        self._thread.join()

    def _loop(self) -> None:
        ledger = self._client.ledger
        keys = [ledger.key("bench", "payload"), ledger.key("bench", "queued"), "noop.bulk"]
        while not self._done.wait(0.05):
            for status in ledger.statuses(["bench"]):
                self.queued = max(self.queued, status.request_counts["queued"])
            sizes = [int(ledger.redis.memory_usage(key, samples=50) or 0) for key in keys]
            self.queue_bytes = max(self.queue_bytes, sum(sizes))


if __name__ == "__main__":
    sys.exit(main())
