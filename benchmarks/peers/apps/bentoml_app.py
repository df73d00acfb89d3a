"""A BentoML service: ``bentoml serve benchmarks.peers.apps.bentoml_app:Classify``."""

import os

import bentoml

from benchmarks.peers import work

__all__ = ["Classify"]


@bentoml.service(
    workers=int(os.environ["BENCH_PROCESSES"]),
    traffic={"timeout": 120},
    metrics={"enabled": False},
    logging={"access": {"enabled": False}},
)
class Classify:
    """Paths in, their labels out; many requests at a time for the model."""

    @bentoml.api(batchable=True, max_batch_size=int(os.environ["BENCH_BATCH"]), max_latency_ms=60_000)
    def classify(self, paths: list[str]) -> list[list[int]]:
        """The labels of each."""
        return work.classify(paths)
