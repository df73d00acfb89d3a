"""All checks, in the order in which their findings are shown."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from celery import Celery
from redis.exceptions import RedisError

from jobs.connection import connect
from jobs.ledger import Ledger
from jobs.registry import Registry
from jobs.settings import Settings
from producer.doctor import fleet, machine, packages, redis
from producer.doctor.patient import Finding, Patient

__all__ = ["CHECKS", "admit", "examine"]

Check = Callable[[Patient], Iterator[Finding]]

CHECKS: tuple[Check, ...] = (
    fleet.redis_unreachable,
    redis.redis_evicts,
    redis.redis_cannot_persist,
    redis.redis_forgets,
    redis.visibility_timeouts_differ,
    redis.clocks_differ,
    packages.celery_too_old,
    packages.torchvision_mismatch,
    packages.pixels_unlimited,
    machine.too_many_threads,
    machine.torch_before_fork,
    machine.roots_unreadable,
    fleet.model_not_served,
)


def admit(settings: Settings) -> Patient:
    """Gather what the checks look at."""
    app = Celery("labelmill-doctor", set_as_current=False)
    app.config_from_object("celeryconfig")
    app.conf.update(broker_url=settings.broker_url, result_backend=settings.result_backend_url)
    ledger = Ledger(connect(settings, retries=0), prefix=settings.key_prefix)
    try:
        info = ledger.redis.info()
        workers = Registry(ledger.redis, prefix=settings.key_prefix).workers()
    except RedisError:
        return Patient(settings, app)
    return Patient(settings, app, ledger, dict(info), workers)


def examine(patient: Patient) -> list[Finding]:
    """Everything that is wrong."""
    return [finding for check in CHECKS for finding in check(patient)]
