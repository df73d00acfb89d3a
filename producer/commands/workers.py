"""``labelmill workers``: the fleet."""

from __future__ import annotations

import argparse
import time
from typing import Any

from jobs.registry import WorkerInfo
from producer.commands.display import ago, print_json, print_table, time_of
from producer.commands.options import add_broker, add_json, connect, examples

__all__ = ["add_arguments", "run"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of ``workers``."""
    add_broker(parser)
    add_json(parser)
    examples(parser, "labelmill workers", "labelmill workers --json")


def run(args: argparse.Namespace) -> int:
    """Print a line for each worker that lives."""
    found = connect(args).workers()
    if args.json:
        print_json([_object(worker) for worker in found])
        return 0
    columns = ("worker", "state", "processes", "models", "images/s", "memory", "last chunk", "since")
    rows = [
        (
            worker.node,
            worker.state,
            worker.processes,
            ", ".join(f"{model.name} {model.digest[:19]}" for model in worker.models),
            round(worker.rate),
            f"{worker.rss_bytes >> 20} MiB",
            _age(worker.last_ms),
            ago(worker.started_ms),
        )
        for worker in found
    ]
    print_table(columns, rows, numbers=("processes", "images/s", "memory"))
    return 0


def _object(worker: WorkerInfo) -> dict[str, Any]:
    return {
        "node": worker.node,
        "state": worker.state,
        "host": worker.host,
        "pid": worker.pid,
        "processes": worker.processes,
        "models": [
            {"name": model.name, "digest": model.digest, "images_per_s": model.images_per_s} for model in worker.models
        ],
        "images_per_s": worker.rate,
        "rss_bytes": worker.rss_bytes,
        "last_chunk_at": time_of(worker.last_ms),
        "started_at": time_of(worker.started_ms),
    }


def _age(ms: int) -> str:
    """How long ago that was, for people: ``3 s ago``; ``never`` for 0."""
    if not ms:
        return "never"
    seconds = max(0, int(time.time() - ms / 1000))
    minutes, hours = seconds // 60, seconds // 3600
    return f"{seconds} s ago" if minutes < 2 else f"{minutes} min ago" if hours < 2 else f"{hours} h ago"
