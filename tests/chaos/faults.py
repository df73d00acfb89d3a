"""Every fault, in the order of the table."""

from __future__ import annotations

from tests.chaos import (
    kill_plain,
    kill_producer,
    kill_redis,
    kill_worker,
    pause_worker,
    poison,
    restart_worker,
)

__all__ = ["FAULTS"]

FAULTS = (
    kill_worker.FAULT,
    kill_plain.FAULT,
    restart_worker.FAULT,
    kill_redis.FAULT,
    pause_worker.FAULT,
    poison.FAULT,
    kill_producer.FAULT,
)
