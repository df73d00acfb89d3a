"""Work that nobody does."""

from __future__ import annotations

from collections.abc import Iterator
from typing import cast

from producer.doctor.patient import Finding, Patient

__all__ = ["model_not_served", "redis_unreachable"]


def redis_unreachable(patient: Patient) -> Iterator[Finding]:
    """Nothing works without."""
    if patient.ledger is None:
        yield Finding(
            "redis_unreachable",
            "error",
            "Redis does not answer; what needs it was not examined.",
            "Start it, or set LABELMILL_BROKER_URL (and LABELMILL_LEDGER_URL) to where it is.",
        )


def model_not_served(patient: Patient) -> Iterator[Finding]:
    """Jobs that wait for a model, or for one very file of it, which no worker serves."""
    if patient.ledger is None:
        return
    ledger = patient.ledger
    served = {(m.name, digest) for w in patient.workers if w.is_serving for m in w.models for digest in ("", m.digest)}
    waiting = [job.decode() for job in cast("list[bytes]", ledger.redis.zrange(f"{ledger.prefix}deadlines", 0, -1))]
    missing: dict[tuple[str, str], int] = {}
    for status in ledger.statuses(waiting):
        key = (status.model, status.digest)
        if status.request_counts["queued"] and key not in served:
            missing[key] = missing.get(key, 0) + status.request_counts["queued"]
    for (model, digest), images in sorted(missing.items()):
        pinned = f" with digest {digest[:19]}" if digest else ""
        yield Finding(
            "model_not_served",
            "error",
            f"{images} images wait for the model {model!r}{pinned}, which no worker serves.",
            f"Start one: labelmill-worker serve --model {model}; or cancel the jobs.",
        )
