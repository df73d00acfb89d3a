"""What the queue adds to one image, what it keeps in Redis, how it grows with workers, and what a start takes."""

from __future__ import annotations

import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import chain
from pathlib import Path

import psutil

from benchmarks.bulk_submit import Synthetic
from benchmarks.celery_apps import Calls
from benchmarks.contest import Goal
from benchmarks.images import make_images
from benchmarks.stack import labelmill, running, running_redis, timed, until, used_memory
from jobs.items import Item
from producer.client import Labelmill
from producer.job import Job
from producer.sources import Pictures

__all__ = ["latency", "redis_memory", "scaling", "start"]

MODEL = "efficientnet-lite0"


def latency(rounds: int, calls: int = 80) -> tuple[list[Goal], dict[str, list[list[float]]]]:
    """Seconds of single calls: in this process, through an idle queue, and beside a bulk job that fills it.

    A 99th percentile is of the calls of all rounds: that of one would be the slowest call.
    """
    folder = make_images("photo", 400)
    paths = [str(path) for path in sorted(folder.glob("*.jpg"))]
    with labelmill(MODEL) as client:
        single = Calls(client.celery, "labelmill.classify", client.settings.broker_url)
        alone = _in_process(MODEL)
        taken: dict[str, list[list[float]]] = {"in process": [], "idle": [], "under load": []}
        chunks_s = []
        for number in range(rounds):
            here = [paths[(number * calls + call) % len(paths)] for call in range(calls)]
            pairs = [(timed(lambda path=path: alone(path)), single.call(path)) for path in here]  # type: ignore[misc]
            taken["in process"].append([pair[0] for pair in pairs])
            taken["idle"].append([pair[1] for pair in pairs])
            with _load(client, paths, f"load-{number}") as job:
                taken["under load"].append([single.call(path) for path in here])
                chunks_s.append(_chunk_seconds(job))
    alone_s, idle_s = taken["in process"], taken["idle"]
    added = statistics.median(map(_added, alone_s, idle_s)) * 1e3
    idle, loaded = (list(chain.from_iterable(taken[name])) for name in ("idle", "under load"))
    bound = (statistics.median(chunks_s) + 2 * _p99(idle)) * 1e3
    return [
        Goal("one call, idle: added to the in-process time, p50", added, 5, "ms", at_most=True),
        Goal(
            "one call under bulk load, p99, against a chunk and twice idle",
            _p99(loaded) * 1e3,
            bound,
            "ms",
            at_most=True,
        ),
    ], taken


def redis_memory(count: int = 100_000) -> list[Goal]:
    """Bytes of Redis for a queued image by reference, and for a stored result, as it says itself."""
    with running_redis() as url:
        client = Labelmill(url)
        client.bell.ring("warm.bulk")
        before = used_memory(client)
        client.submit(Synthetic(count), model="noop", chunk_size=32)
        queued = (used_memory(client) - before) / count
    folder = make_images("tiny", 20_000)
    with labelmill("cifar10-cnn") as client:
        before = used_memory(client)
        client.submit(str(folder), model="cifar10-cnn", by="reference", chunk_size=32).wait()
        stored = (used_memory(client) - before) / 20_000
    return [
        Goal("Redis for a queued image by reference", queued, 150, "bytes", at_most=True),
        Goal("Redis for a stored top-5 result", stored, 250, "bytes", at_most=True),
    ]


def scaling(rounds: int, workers: tuple[int, ...] = (1, 16, 32)) -> tuple[list[Goal], dict[int, list[float]]]:
    """Images/s of workers that only sleep: what the queue itself leaves of the sum."""
    rates: dict[int, list[float]] = {}
    for many in workers:
        with labelmill("noop:10:10", workers=many, concurrency=1) as client:
            count = 200 * many
            for _ in range(rounds):
                began = time.perf_counter()
                job = client.submit(Synthetic(count), model="noop", chunk_size=10)
                assert sum(1 for _ in job.results()) == count
                rates.setdefault(many, []).append(count / (time.perf_counter() - began))
    medians = {many: statistics.median(found) for many, found in rates.items()}
    least = min(medians[many] / (many * medians[workers[0]]) for many in workers)
    return [Goal(f"workers that sleep, 1 to {workers[-1]}: throughput / linear", least, 0.9)], rates


def start(rounds: int) -> tuple[list[Goal], dict[str, list[float]]]:
    """Seconds from a worker's start to READY, and the memory it then holds."""
    taken: dict[str, list[float]] = {"seconds": [], "MiB": [], "torch": []}
    for _ in range(rounds):
        with tempfile.TemporaryDirectory(prefix="lm-bench-") as name, running_redis() as url:
            folder = Path(name)
            client, began = Labelmill(url), time.perf_counter()
            command = [sys.executable, "-m", "worker", "serve", "--model", MODEL, "--log-level", "WARNING"]
            log = folder / "worker.log"
            with running(command, log=log, env={"LABELMILL_BROKER_URL": url}) as process:
                until(client.models, "a worker")
                taken["seconds"].append(time.perf_counter() - began)
                family = [psutil.Process(process.pid), *psutil.Process(process.pid).children(recursive=True)]
                taken["MiB"].append(max(one.memory_info().rss for one in family) / 2**20)
                maps = "".join(Path(f"/proc/{one.pid}/maps").read_text() for one in family)
                taken["torch"].append(float("libtorch" in maps))
    return [
        Goal("start of a worker to READY", statistics.median(taken["seconds"]), 3, "s", at_most=True),
        Goal("resident memory of its largest process", statistics.median(taken["MiB"]), 350, "MiB", at_most=True),
        Goal("torch in one of its processes", max(taken["torch"]), 0, at_most=True),
    ], taken


def _in_process(model: str) -> Callable[[str], object]:
    """The same work without a queue: read, decode, predict, rank."""
    from worker.decode import DecodeLimits, decode
    from worker.engine import top
    from worker.models import loader

    runtime = loader.load(model)
    preprocessing, limits = runtime.card.preprocessing, DecodeLimits()

    def classify(path: str) -> object:
        image = decode(Path(path).read_bytes(), preprocessing, limits)
        return top(runtime.predict(image[None]), 5).lines()

    return classify


@contextmanager
def _load(client: Labelmill, paths: list[str], name: str) -> Iterator[Job]:
    """A bulk job that is at work, and has far more queued than is done meanwhile."""
    job = client.open(MODEL, job_id=name, top_k=5)
    sender = job.sender()
    sender.start(Pictures([Item(f"{n}", paths[n % len(paths)]) for n in range(20_000)], unique=True), checked=True)
    until(lambda: sender.join(0.1), "the backlog")  # the workers' cores are not the producer's any more
    until(lambda: job.status().request_counts["leased"], "bulk work")
    yield job
    job.cancel()
    until(lambda: job.status().ended, "the end of bulk work")


def _added(alone: list[float], queued: list[float]) -> float:
    return statistics.median(queued) - statistics.median(alone)


def _p99(values: list[float]) -> float:
    return statistics.quantiles(values, n=100)[98]


def _chunk_seconds(job: Job) -> float:
    """How long a bulk chunk of the running job takes, by what was done since its last look."""
    first, began = job.status(), time.perf_counter()
    until(lambda: job.status().done - first.done >= 100, "bulk work")
    rate = (job.status().done - first.done) / (time.perf_counter() - began)
    return job.status().request_counts["leased"] / rate  # what is in hand is one chunk for each process
