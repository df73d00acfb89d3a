"""The product's own Celery application, whose consumer goes deaf as soon as it is ready, and stays silent about it.

    celery -A tests.support.deaf_app worker

Its sockets stay open, but nobody reads them any more: what a lost registration after a reconnect looks like.
"""

from __future__ import annotations

import os
from typing import Any

from celery.signals import worker_ready
from kombu.transport.redis import Transport

from tasks import app

__all__ = ["app"]

#: Whether what begins again is deaf, too.
STAYS_DEAF = os.environ.get("DEAF_FOR_EVER") == "1"


@worker_ready.connect  # type: ignore[untyped-decorator]
def _go_deaf(sender: Any, **_: Any) -> None:
    hub = sender.hub
    hub.on_tick = {tick for tick in hub.on_tick if not tick.__module__.startswith("kombu.transport")}
    for descriptor in list(sender.connection.transport.cycle.fds):
        hub.remove(descriptor)
    if STAYS_DEAF:
        Transport.register_with_event_loop = lambda self, connection, loop: None
