"""A Dramatiq actor with results in Redis. ``BENCH_BROKER`` says where that is."""

from __future__ import annotations

import os

import dramatiq
from dramatiq.brokers.redis import RedisBroker
from dramatiq.results import Results
from dramatiq.results.backends import RedisBackend

from benchmarks.peers import work

__all__ = ["broker", "classify"]

broker = RedisBroker(url=os.environ["BENCH_BROKER"])
broker.add_middleware(Results(backend=RedisBackend(url=os.environ["BENCH_BROKER"])))
dramatiq.set_broker(broker)


@dramatiq.actor(store_results=True, max_retries=0)
def classify(path: str) -> list[int]:
    """The labels of one image."""
    return work.classify([path])[0]
