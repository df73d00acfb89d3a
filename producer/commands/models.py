"""``labelmill models``: which models are served, by how many workers, with which digest."""

from __future__ import annotations

import argparse
from collections import defaultdict
from typing import Any

from jobs.registry import WorkerInfo
from producer.client import Labelmill
from producer.commands.display import print_json, print_table
from producer.commands.options import add_broker, add_json, connect, examples

__all__ = ["add_arguments", "run"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of ``models``."""
    add_broker(parser)
    add_json(parser)
    examples(parser, "labelmill models", "labelmill models --json")


def run(args: argparse.Namespace) -> int:
    """Print a line for each model file."""
    found = _models(connect(args))
    if args.json:
        print_json(found)
        return 0
    columns = ("model", "version", "digest", "labels", "workers", "processes", "images/s")
    rows = [
        (m["name"], m["version"], m["digest"], m["labels"], m["workers"], m["processes"], round(m["images_per_s"]))
        for m in found
    ]
    print_table(columns, rows, numbers=columns[3:])
    return 0


def _models(client: Labelmill) -> list[dict[str, Any]]:
    """One for each digest; ``images_per_s`` is what all its processes said of themselves at their warm-up."""
    serving: dict[tuple[str, str], list[tuple[WorkerInfo, float]]] = defaultdict(list)
    for worker in client.workers():
        for model in worker.models:
            if worker.is_serving:
                serving[model.name, model.digest].append((worker, model.images_per_s))
    found = []
    for (name, digest), workers in sorted(serving.items()):
        known = client.registry.model(digest)
        found.append(
            {
                "name": name,
                "digest": digest,
                "version": known.version if known else "",
                "labels": len(known.labels) if known else 0,
                "workers": len(workers),
                "processes": sum(worker.processes for worker, _ in workers),
                "images_per_s": sum(worker.processes * rate for worker, rate in workers),
            }
        )
    return found
