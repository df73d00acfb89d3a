"""The gateway as a process: gunicorn with our application and our intake, run in this very process."""

from __future__ import annotations

import os
import resource
import sys
from collections.abc import Callable
from typing import Any

from flask import Flask
from gunicorn.app.base import BaseApplication
from gunicorn.arbiter import Arbiter

from jobs.errors import LabelmillError, ServiceError
from producer.web import create_app
from producer.web.intake import IntakeWorker
from producer.web.settings import WebSettings

__all__ = ["Gateway"]

#: Seconds that requests under way get at a stop, and for which an idle connection is kept (longer than a proxy does).
GRACE_S, KEEP_S = 30, 75
#: Seconds after which a process that says nothing is replaced.
SILENT_S = 60
#: Connections that one process holds.
CONNECTIONS = 2000


class Gateway(BaseApplication):  # type: ignore[misc]
    """gunicorn with this gateway. ``ready`` is told the address; ``check`` raises where the service must end."""

    def __init__(
        self,
        settings: WebSettings,
        *,
        host: str,
        port: int,
        access_log: bool = False,
        ready: Callable[[str], None],
        check: Callable[[], None],
    ) -> None:
        self._settings = settings
        self._bind = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        self._access_log = access_log
        self._ready = ready
        self._check = check
        super().__init__()

    def load_config(self) -> None:
        """gunicorn's settings; nothing is read from files or from its own variables."""
        values = {
            "bind": self._bind,
            "workers": self._settings.web_processes,
            "worker_class": IntakeWorker,
            "threads": self._settings.web_threads,
            "worker_connections": CONNECTIONS,
            "keepalive": KEEP_S,
            "timeout": SILENT_S,
            "graceful_timeout": GRACE_S,
            "loglevel": "warning",
            "accesslog": "-" if self._access_log else None,
            "control_socket_disable": True,
            "proc_name": "labelmill-gateway",
            "when_ready": lambda arbiter: self._ready(_address(arbiter)),
        }
        for name, value in values.items():
            self.cfg.set(name, value)

    def load(self) -> Flask:
        """The application, made in each process after the fork."""
        return create_app(self._settings)

    def run(self) -> int:
        """Serve until SIGTERM or SIGINT; returns the exit code."""
        mine = os.getpid()
        _allow_connections()
        try:
            _Arbiter(self, self._check).run()
        except SystemExit as exc:
            code = exc.code if isinstance(exc.code, int) else 1
            if os.getpid() != mine:  # a process that was forked: what its parent started is not its to stop
                sys.stdout.flush()
                sys.stderr.flush()
                os._exit(code)
            return code
        return 0


class _Arbiter(Arbiter):  # type: ignore[misc]
    """gunicorn's arbiter that ends when what it depends on has ended, and does not re-execute itself."""

    def __init__(self, app: Gateway, check: Callable[[], None]) -> None:
        super().__init__(app)
        self._check = check
        self.error: LabelmillError | None = None

    def manage_workers(self) -> None:
        """Called each second."""
        super().manage_workers()
        try:
            self._check()
        except ServiceError as exc:
            print(f"labelmill: {exc.message}", file=sys.stderr, flush=True)
            self.halt(exit_status=exc.exit_code)

    def handle_usr2(self) -> None:
        """A second gateway cannot share the embedded Redis and worker of the first."""
        self.log.warning("SIGUSR2 is not supported: start a new gateway instead")


def _allow_connections() -> None:
    """As many open files as the system lets us have: each connection is one, and each upload."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = 4 * CONNECTIONS
    if soft != resource.RLIM_INFINITY and soft < wanted:
        most = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))


def _address(arbiter: Any) -> str:
    host, port = arbiter.LISTENERS[0].getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
