"""The worker's metrics over HTTP: what its processes counted, and what only its main process knows."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Protocol

from prometheus_client import CollectorRegistry, start_http_server
from prometheus_client.metrics_core import GaugeMetricFamily, Metric
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.registry import Collector

from jobs import backlog
from jobs.connection import connect
from jobs.patience import GONE
from jobs.registry import ModelInfo, Registry
from jobs.settings import Settings

__all__ = ["NodeCollector", "Worker", "serve"]


class Worker(Protocol):
    """What the main process knows of itself."""

    models: list[ModelInfo]

    @property
    def shown(self) -> str:
        """STARTING, READY, BUSY, ..."""

    def resident_bytes(self) -> int:
        """Memory of the worker and its processes."""


class NodeCollector(Collector):
    """What only the main process knows: the worker, its models, the fleet and the backlog. Read at each scrape."""

    def __init__(self, worker: Worker, settings: Settings, processes: int, states: Sequence[str]) -> None:
        self.worker = worker
        self.processes = processes
        self.states = states
        self.prefix = settings.key_prefix
        self.redis = connect(settings, retries=0)
        self.registry = Registry(self.redis, prefix=settings.key_prefix)

    def collect(self) -> Iterator[Metric]:
        """Every gauge; without Redis those of the worker alone."""
        yield from self._own()
        try:
            fleet, backlogs = self.registry.workers(), self._backlogs()
        except GONE:
            yield _gauge("redis_up", "1 while this worker reaches its Redis.", ({}, 0))
            return
        yield _gauge("redis_up", "1 while this worker reaches its Redis.", ({}, 1))
        serving = Counter(m.name for w in fleet if w.is_serving for m in w.models)
        yield _gauge("fleet_workers", "Workers that serve a model.", *(({"model": m}, n) for m, n in serving.items()))
        for name, doc in (("items", "Images queued or leased."), ("seconds", "Seconds until they are all done.")):
            rows = [({"model": model}, getattr(found, name)) for model, found in backlogs.items()]
            yield _gauge(f"backlog_{name}", doc, *rows)

    def _own(self) -> Iterator[Metric]:
        now = self.worker.shown
        states = [({"state": str(state)}, int(state == now)) for state in self.states]
        yield _gauge("worker_state", "1 for the state that the worker is in.", *states)
        infos = [({"model": m.name, "digest": m.digest, "version": m.version}, 1) for m in self.worker.models]
        yield _gauge("model_info", "The models that the worker serves.", *infos)
        yield _gauge("worker_processes", "Processes or threads of the pool.", ({}, self.processes))
        resident = self.worker.resident_bytes()
        yield _gauge("worker_resident_bytes", "Memory of the worker and its processes.", ({}, resident))

    def _backlogs(self) -> dict[str, backlog.Backlog]:
        return backlog.read(self.redis, [model.name for model in self.worker.models], prefix=self.prefix)


def serve(settings: Settings, collector: NodeCollector) -> None:
    """Serve the metrics of all processes in a thread of this one. Raises OSError where the port is taken."""
    registry = CollectorRegistry()
    MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
    registry.register(collector)
    start_http_server(settings.metrics_port, settings.metrics_host, registry)


def _gauge(name: str, doc: str, *rows: tuple[dict[str, str], float]) -> Metric:
    labels = list(rows[0][0]) if rows else []
    family = GaugeMetricFamily(f"labelmill_{name}", doc, labels=labels)
    for values, number in rows:
        family.add_metric(list(values.values()), number)
    return family
