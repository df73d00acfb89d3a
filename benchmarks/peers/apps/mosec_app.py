"""A Mosec service: ``python -m benchmarks.peers.apps.mosec_app --port N``."""

from __future__ import annotations

import os

import orjson
from mosec import Server, Worker

from benchmarks.peers import work

__all__ = ["Classify"]


class Classify(Worker):
    """A path in, its labels out; many at a time for the model."""

    def deserialize(self, data: bytes) -> str:
        """The path of a request's body."""
        return str(orjson.loads(data))

    def forward(self, data: list[str]) -> list[list[int]]:
        """The labels of each."""
        return work.classify(data)

    def serialize(self, data: list[int]) -> bytes:
        """A reply's body."""
        return orjson.dumps(data)


if __name__ == "__main__":
    server = Server()
    server.append_worker(
        Classify,
        num=int(os.environ["BENCH_PROCESSES"]),
        max_batch_size=int(os.environ["BENCH_BATCH"]),
        max_wait_time=int(os.environ["BENCH_WAIT_MS"]),
    )
    server.run()
