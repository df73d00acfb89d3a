"""Celery's consumer, but for how it waits for a broker that is gone: it looks each second, and says so once.

Celery waits 2 s longer after each attempt, up to 30 s, and logs each of them: after a minute without Redis it would
stand idle for another half.
"""

from __future__ import annotations

import random
import warnings
from typing import Any

from celery.exceptions import CPendingDeprecationWarning
from celery.worker import consumer
from celery.worker.state import maybe_shutdown

from jobs.errors import BrokerUnavailableError
from jobs.patience import VOICE

__all__ = ["Consumer"]

# It asks for a setting to be changed, at each loss of the connection; celeryconfig.py says why it is as it is.
warnings.filterwarnings("ignore", category=CPendingDeprecationWarning, module="celery.worker.consumer")


class Consumer(consumer.Consumer):  # type: ignore[misc]
    """Takes messages from the broker."""

    def ensure_connected(self, conn: Any) -> Any:
        """Wait until the broker answers, or until the worker is asked to end."""
        failed = False

        def say(exc: BaseException, interval: float) -> None:
            nonlocal failed
            failed = True
            VOICE.gone(BrokerUnavailableError(f"the broker does not answer ({type(exc).__name__})"))

        wait_s = random.uniform(1.0, 1.5)  # so that a fleet does not come back in one wave
        conn.ensure_connection(
            say, None, interval_start=wait_s, interval_step=0, interval_max=wait_s, callback=maybe_shutdown
        )
        if failed:
            VOICE.back()
        self.first_connection_attempt = False
        return conn
