"""A LitServe service: ``python -m benchmarks.peers.apps.litserve_app``."""

from __future__ import annotations

import os
from typing import Any

import litserve

from benchmarks.peers import work

__all__ = ["Classify"]


class Classify(litserve.LitAPI):
    """A path in, its labels out; many at a time for the model."""

    def setup(self, device: str) -> None:
        """Nothing: the model is loaded at the first call."""

    def decode_request(self, request: dict[str, str], **_: Any) -> str:
        """The path of a request."""
        return request["path"]

    def predict(self, x: Any, **_: Any) -> list[list[int]]:
        """The labels of each; a batch of one too comes as a list."""
        return work.classify(x if isinstance(x, list) else [x])

    def encode_response(self, output: list[int], **_: Any) -> dict[str, list[int]]:
        """A reply."""
        return {"labels": output}


if __name__ == "__main__":
    batch = int(os.environ["BENCH_BATCH"])
    api = Classify(max_batch_size=batch, batch_timeout=float(os.environ["BENCH_WAIT_S"]))
    server = litserve.LitServer(
        api,
        accelerator="cpu",
        devices=1,
        workers_per_device=int(os.environ["BENCH_PROCESSES"]),
        timeout=60,
    )
    port = int(os.environ["BENCH_PORT"])
    server.run(host="127.0.0.1", port=port, num_api_servers=1, generate_client_file=False, log_level="error")
