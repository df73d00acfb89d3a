"""The work itself, the same for every peer: read, decode and preprocess as our workers do, predict, rank.

``BENCH_MODEL`` in the environment names the model, ``BENCH_BATCH`` how many images it is given at once. One session
of one thread to each process, loaded at the first call.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from functools import cache
from typing import Any

__all__ = ["TOP_K", "Answer", "classify"]

#: Labels of each image that are ranked.
TOP_K = 5
#: ``[index, units, ...]`` of an image's labels, the error in the peer's own words, or None where nothing came.
Answer = list[int] | str | None


def classify(paths: Sequence[str]) -> list[list[int]]:
    """Five labels of each image, best first: ``[index, units, index, units, ...]``. Raises where one is damaged."""
    size = int(os.environ.get("BENCH_BATCH", "1"))
    return [answer for at in range(0, len(paths), size) for answer in _batch(paths[at : at + size])]


def _batch(paths: Sequence[str]) -> list[list[int]]:
    import numpy as np
    import orjson

    from benchmarks.bare import read_file
    from worker.decode import DecodeLimits, decode_into
    from worker.engine import top

    runtime, limits = _runtime(os.environ["BENCH_MODEL"]), DecodeLimits()
    preprocessing = runtime.card.preprocessing
    images = np.empty((len(paths), *preprocessing.size, 3), np.uint8)
    for place, path in enumerate(paths):
        decode_into(read_file(path), images[place], preprocessing, limits)
    lines = top(runtime.predict(images), TOP_K).lines()
    answers: list[list[int]] = orjson.loads(b"[" + lines.replace(b"\n", b",") + b"]")
    return answers


@cache
def _runtime(model: str) -> Any:
    from worker.models import loader

    return loader.load(model)
