"""What is served, by how many workers, and how much waits for it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from flask import Blueprint, Response

from jobs.registry import ModelInfo, WorkerInfo
from producer.web.replies import json_reply
from producer.web.service import Service
from producer.web.times import iso

__all__ = ["blueprint"]


def blueprint(service: Service) -> Blueprint:
    """``GET /v1/models``."""
    views = Blueprint("models", __name__)

    @views.get("/v1/models")
    def models() -> Response:
        fleet = service.fleet()
        waiting = service.backlog()
        described = [
            _model(name, served, service, waiting.get(name, 0), _rate(name, fleet.workers))
            for name, served in sorted(fleet.serving().items())
        ]
        default = service.settings.model_name
        return json_reply(
            {
                "default_model": described[0]["name"] if len(described) == 1 else default,
                "models": described,
                "workers": [_worker(worker) for worker in fleet.workers],
            }
        )

    return views


def _model(name: str, served: list[ModelInfo], service: Service, backlog: int, rate: float) -> dict[str, Any]:
    info = service.published(served[0].digest)
    return {
        "name": name,
        "digests": sorted({model.digest for model in served}),
        "version": info.version,
        "labels": len(info.labels),
        "workers": len(served),
        "images_per_s": round(rate, 1),
        "backlog": backlog,
    }


def _rate(name: str, workers: Iterable[WorkerInfo]) -> float:
    """Predictions a second of all processes together, as they measured at their warm-up: more than this cannot be."""
    return sum(w.processes * model.images_per_s for w in workers for model in w.models if model.name == name)


def _worker(worker: WorkerInfo) -> dict[str, Any]:
    """A worker without its host and process, which are nobody's business out there."""
    return {
        "state": worker.state,
        "models": [model.name for model in worker.models],
        "processes": worker.processes,
        "rss_bytes": worker.rss_bytes,
        "started_at": iso(worker.started_ms),
    }
