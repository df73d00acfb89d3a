"""What a worker counts and measures, for Prometheus.

Each process of the pool has a :class:`Meter`, which writes into files that its processes share; the main process adds
them up and serves them (:mod:`worker.exposition`). Without a port nothing is counted.
A chunk costs a handful of observations, whatever its number of images. Every metric is in ``docs/operations.md``.
"""

from __future__ import annotations

import atexit
import os
import shutil
from collections import Counter
from collections.abc import Sequence
from importlib.util import find_spec
from typing import Protocol

import orjson

from jobs.errors import UsageError
from jobs.settings import Settings
from worker import leftovers
from worker.engine import ChunkResult

__all__ = ["Meter", "NoMeter", "PrometheusMeter", "make_meter", "prepare"]

#: Upper bounds of the buckets, in seconds: a stage of one chunk, and what waited in the queue.
STAGE_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
QUEUE_S = (0.01, 0.1, 0.5, 1.0, 5.0, 15.0, 60.0, 300.0, 900.0, 3600.0, 14_400.0, 86_400.0)
BATCHES = (1, 2, 4, 8, 16, 32, 64, 128, 256)
#: What the names of the folders begin with.
FOLDERS = "labelmill-metrics-"
_DIR = "PROMETHEUS_MULTIPROC_DIR"


class Meter(Protocol):
    """What a process tells of its work."""

    def chunk(self, model: str, lane: str, done: ChunkResult) -> None:
        """A chunk was computed; ``lane`` is ``bulk`` or ``interactive``."""

    def queued(self, model: str, seconds: float) -> None:
        """A chunk had waited this long when it was claimed."""

    def wrote(self, model: str, seconds: float, *, recorded: bool) -> None:
        """A chunk's results were sent to the ledger, which recorded them or dropped them as too late."""

    def leases(self, *, renewed: int, lost: int) -> None:
        """Leases were renewed, and some were found lost."""


class NoMeter:
    """Counts nothing."""

    def chunk(self, model: str, lane: str, done: ChunkResult) -> None:
        """Nothing."""

    def queued(self, model: str, seconds: float) -> None:
        """Nothing."""

    def wrote(self, model: str, seconds: float, *, recorded: bool) -> None:
        """Nothing."""

    def leases(self, *, renewed: int, lost: int) -> None:
        """Nothing."""


class PrometheusMeter:
    """Counts into the files of ``PROMETHEUS_MULTIPROC_DIR``; made in each process, after the fork."""

    def __init__(self) -> None:
        from prometheus_client import CollectorRegistry, Counter, Histogram

        own = CollectorRegistry()  # nothing is read from here: the main process reads the files

        def histogram(name: str, doc: str, labels: Sequence[str], buckets: Sequence[float] = STAGE_S) -> Histogram:
            return Histogram(f"labelmill_{name}", doc, labels, buckets=buckets, registry=own)

        def counter(name: str, doc: str, labels: Sequence[str] = ()) -> Counter:
            return Counter(f"labelmill_{name}", doc, labels, registry=own)

        model, lane = ("model",), ("model", "lane")
        self._images = counter("images", "Images by status and error code.", ("model", "status", "code"))
        self._batch = histogram("batch_images", "Images of a batch.", model, BATCHES)
        self._queue = histogram("queue_seconds", "From a chunk's submission to its claim.", model, QUEUE_S)
        self._fetch = histogram("fetch_seconds", "Fetching the images of a chunk.", lane)
        self._decode = histogram("decode_seconds", "Decoding the images of a chunk.", lane)
        self._predict = histogram("predict_seconds", "Predictions of a chunk.", lane)
        self._write = histogram("write_seconds", "Writing the results of a chunk.", model)
        self._renewed = counter("leases_renewed", "Leases renewed.")
        self._lost = counter("leases_lost", "Leases that were given to somebody else.")
        self._late = counter("late_finishes", "Chunks whose results came too late and were dropped.", model)

    def chunk(self, model: str, lane: str, done: ChunkResult) -> None:
        """See :class:`Meter`."""
        if done.succeeded:
            self._images.labels(model, "succeeded", "").inc(done.succeeded)
        if done.failed:
            for code, number in _codes(done.lines).items():
                self._images.labels(model, "failed", code).inc(number)
        batch = self._batch.labels(model)
        for size in done.spent.batches:
            batch.observe(size)
        self._fetch.labels(model, lane).observe(done.spent.fetch_s)
        self._decode.labels(model, lane).observe(done.spent.decode_s)
        self._predict.labels(model, lane).observe(done.spent.predict_s)

    def queued(self, model: str, seconds: float) -> None:
        """See :class:`Meter`. The producer's clock and ours may differ: never below 0."""
        self._queue.labels(model).observe(max(0.0, seconds))

    def wrote(self, model: str, seconds: float, *, recorded: bool) -> None:
        """See :class:`Meter`."""
        self._write.labels(model).observe(seconds)
        late = self._late.labels(model)
        if not recorded:
            late.inc()

    def leases(self, *, renewed: int, lost: int) -> None:
        """See :class:`Meter`."""
        self._renewed.inc(renewed)
        self._lost.inc(lost)


def prepare(settings: Settings) -> None:
    """In the main process, before the first fork: the folder that the processes share."""
    if not settings.metrics_port:
        return
    if find_spec("prometheus_client") is None:
        raise UsageError("LABELMILL_METRICS_PORT needs prometheus-client: install labelmill[metrics]")
    if os.environ.get(_DIR):
        return
    leftovers.sweep(FOLDERS)
    folder, pid = leftovers.make_folder(FOLDERS), os.getpid()
    os.environ[_DIR] = folder  # prometheus_client reads it when it is first imported

    def remove() -> None:
        if os.getpid() == pid:
            shutil.rmtree(folder, ignore_errors=True)

    atexit.register(remove)


def make_meter(settings: Settings) -> Meter:
    """The meter of this process."""
    return PrometheusMeter() if settings.metrics_port else NoMeter()


def _codes(lines: bytes) -> Counter[str]:
    """How often each error code is among a chunk's result lines."""
    return Counter(orjson.loads(line)[0] for line in lines.split(b"\n") if line.startswith(b'["'))
