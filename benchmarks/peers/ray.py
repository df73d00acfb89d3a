"""Ray Data: ``map_batches`` over the paths, as many tasks at once as there are cores.

Tasks, not the actor class of its documentation: actors are new processes, with a new model, for every dataset; those
of tasks stay. It has no deadline: a run ends or raises.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from benchmarks.peers.driver import Classify, Setup
from benchmarks.peers.work import Answer

__all__ = ["classify_batch", "serve"]

#: Bytes of the object store: only paths and labels lie in it.
STORE_BYTES = 200_000_000


def classify_batch(batch: dict[str, Any]) -> dict[str, Any]:
    """``place`` and ``path`` in, ``place`` and ``answer`` out. Its process stays, and so does the model."""
    from benchmarks.peers import work

    return {"place": batch["place"], "answer": work.classify([str(path) for path in batch["path"]])}


@contextmanager
def serve(setup: Setup) -> Iterator[Classify]:
    """A Ray of this machine alone."""
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    import ray

    ray.init(
        num_cpus=setup.processes,
        include_dashboard=False,
        object_store_memory=STORE_BYTES,
        _node_ip_address="127.0.0.1",
        _temp_dir=str(setup.folder),
        logging_level="ERROR",
        log_to_driver=False,
    )
    ray.data.DataContext.get_current().enable_progress_bars = False
    try:
        yield _client(setup)
    finally:
        ray.shutdown()


def _client(setup: Setup) -> Classify:
    import ray

    def classify(paths: Sequence[str], deadline: float) -> list[Answer]:
        answers: list[Answer] = [None] * len(paths)
        rows = [{"place": place, "path": path} for place, path in enumerate(paths)]
        data = ray.data.from_items(rows, override_num_blocks=max(setup.processes, len(paths) // setup.chunk))
        pool = ray.data.TaskPoolStrategy(size=setup.processes)
        try:
            done = data.map_batches(classify_batch, batch_size=setup.chunk, compute=pool)
            for batch in done.iter_batches(batch_size=None):
                for place, answer in zip(batch["place"], batch["answer"], strict=True):
                    answers[place] = [int(number) for number in answer]
        except (ray.exceptions.RayError, RuntimeError) as exc:
            answers = [type(exc).__name__ if answer is None else answer for answer in answers]
        return answers

    return classify
