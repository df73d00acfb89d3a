"""What a Redis must be to keep what it is given."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from producer.doctor.patient import Finding, Patient

__all__ = ["clocks_differ", "redis_cannot_persist", "redis_evicts", "redis_forgets", "visibility_timeouts_differ"]

#: Seconds by which two clocks may differ.
CLOCK_S = 2.0
#: Seconds in which a worker answers how it is configured, and kombu's own visibility timeout.
REPLY_S, DEFAULT_VISIBILITY_S = 1.0, 3600


def redis_evicts(patient: Patient) -> Iterator[Finding]:
    """A Redis that drops keys when it is full drops images."""
    policy = patient.info.get("maxmemory_policy", "noeviction")
    if policy != "noeviction":
        yield Finding(
            "redis_evicts",
            "error",
            f"Redis drops keys when its memory is full (maxmemory-policy {policy}): jobs would lose images.",
            "Set `maxmemory-policy noeviction`; producers wait when memory runs short.",
        )


def redis_forgets(patient: Patient) -> Iterator[Finding]:
    """A Redis without AOF loses everything when it restarts."""
    if patient.info and not patient.info.get("aof_enabled"):
        yield Finding(
            "redis_forgets",
            "warning",
            "Redis keeps no append-only file: its restart loses what was accepted since the last snapshot, or all.",
            "Set `appendonly yes` (and `appendfsync everysec`, or `always` to lose nothing at a power cut).",
        )


def redis_cannot_persist(patient: Patient) -> Iterator[Finding]:
    """A Redis that failed to write its files; it may refuse all writes soon."""
    keys = ("rdb_last_bgsave_status", "aof_last_write_status", "aof_last_bgrewrite_status")
    failed = [key for key in keys if patient.info.get(key, "ok") != "ok"]
    if failed:
        yield Finding(
            "redis_cannot_persist",
            "error",
            f"Redis could not write to its disk ({', '.join(failed)}).",
            "See Redis's log; make room on its disk or mend the permissions of its folder (`CONFIG GET dir`).",
        )


def clocks_differ(patient: Patient) -> Iterator[Finding]:
    """Leases use Redis's clock only; what people read (queue times, ages) uses ours too."""
    if patient.ledger is None:
        return
    before = patient.now_s()
    seconds, micros = patient.ledger.redis.time()
    apart = abs((before + patient.now_s()) / 2 - (seconds + micros / 1e6))
    if apart > CLOCK_S:
        yield Finding(
            "clocks_differ",
            "warning",
            f"The clock of this machine and that of Redis are {apart:.1f} s apart: queue times and ages are wrong.",
            "Have both machines keep time (chrony or systemd-timesyncd).",
        )


def visibility_timeouts_differ(patient: Patient) -> Iterator[Finding]:
    """Any application on the broker gives back everybody's unacknowledged messages after its own timeout."""
    if patient.ledger is None or not patient.settings.broker_url.startswith(("redis", "unix", "sentinel")):
        return
    answers: dict[str, Any] = patient.app.control.inspect(timeout=REPLY_S).conf() or {}
    timeouts = {node: _visibility_s(conf) for node, conf in answers.items() if isinstance(conf, dict)}
    if len(set(timeouts.values())) > 1:
        shown = ", ".join(f"{node}: {seconds:g} s" for node, seconds in sorted(timeouts.items()))
        yield Finding(
            "visibility_timeouts_differ",
            "error",
            f"Celery workers on this broker differ in visibility_timeout ({shown}): the shortest one counts for all.",
            "Use one value everywhere, or give each application a Redis database (or a broker) of its own.",
        )


def _visibility_s(conf: dict[str, Any]) -> float:
    options = conf.get("broker_transport_options") or {}
    return float(options.get("visibility_timeout", DEFAULT_VISIBILITY_S))
