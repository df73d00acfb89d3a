"""Plain Celery, many images a task; the rest is :mod:`benchmarks.apps.plain`'s, one image a task among it."""

from __future__ import annotations

from benchmarks.apps.plain import app
from benchmarks.peers import work

__all__ = ["app", "classify_many", "classify_one"]


@app.task
def classify_one(path: str) -> list[int]:
    """The labels of one image."""
    return work.classify([path])[0]


@app.task
def classify_many(paths: list[str]) -> list[list[int]]:
    """The labels of each image."""
    return work.classify(paths)
