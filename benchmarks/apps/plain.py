"""Plain Celery, one task an image, at its best: solo workers, large prefetch, our decoding and the same ONNX file.

``BENCH_BROKER`` and ``BENCH_MODEL`` in the environment say where it runs and what it serves.
"""

from __future__ import annotations

import os
from functools import cache, partial
from typing import Any

from celery import Celery

__all__ = ["app", "classify"]

app = Celery("plain", broker=os.environ.get("BENCH_BROKER"), backend=os.environ.get("BENCH_BROKER"))
app.conf.update(
    task_acks_late=True,
    worker_prefetch_multiplier=64,
    worker_hijack_root_logger=False,
    result_expires=3600,
    broker_transport_options={"priority_steps": [0]},
)


@cache
def engine() -> Any:
    """The warm model of this process."""
    from worker.decode import DecodeLimits, decode_into
    from worker.engine import Engine
    from worker.models import loader

    runtime = loader.load(os.environ["BENCH_MODEL"])
    decode = partial(decode_into, preprocessing=runtime.card.preprocessing, limits=DecodeLimits())
    return Engine(runtime, decode, batch_size=1)


@app.task
def classify(path: str) -> list[int]:
    """Indices and scores of one image's labels."""
    import orjson

    def read(name: str) -> bytes:
        with open(name, "rb", buffering=0) as file:
            return file.read()

    found: list[int] = orjson.loads(engine().run([path], read, top_k=5).lines)
    return found
