"""What one process of the gateway keeps between requests: its client, and what it knows of the fleet.

All of it is made on first use, so after the process was forked, and so that a gateway starts while Redis is away.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import TypeVar

import redis

from jobs import backlog, lanes
from jobs.connection import connect
from jobs.errors import UsageError
from jobs.patience import Patience
from jobs.registry import ModelInfo, Registry, WorkerInfo
from producer.client import Labelmill
from producer.web.problems import Problem
from producer.web.settings import WebSettings
from producer.web.singles import Singles

__all__ = ["Fleet", "Service"]

T = TypeVar("T")

#: Seconds for which the fleet is taken to be as it was: a round trip less for each request.
FLEET_S = 0.5


class _Impatience(Patience):
    """Asks once: a request is answered with 503 where a command line would wait."""

    def __call__(self, call: Callable[[], T]) -> T:
        return call()


@dataclass(frozen=True)
class Fleet:
    """The workers that live, at one moment."""

    workers: tuple[WorkerInfo, ...]

    def serving(self) -> dict[str, list[ModelInfo]]:
        """Each model that is served, once for each worker that takes work for it."""
        found: dict[str, list[ModelInfo]] = {}
        for worker in self.workers:
            if worker.is_serving:
                for model in worker.models:
                    found.setdefault(model.name, []).append(model)
        return found


class Service:
    """One gateway process. Everything here may be called from any thread."""

    def __init__(self, settings: WebSettings) -> None:
        self.settings = settings
        #: Set when the process is asked to stop: streams end.
        self.stopping = threading.Event()
        self._lock = threading.Lock()
        self._client: Labelmill | None = None
        self._fleet: tuple[float, Fleet] | None = None
        self._published: dict[str, ModelInfo] = {}

    @cached_property
    def redis(self) -> redis.Redis:
        """The ledger's Redis; connects on its first command."""
        return connect(self.settings, retries=1)

    @cached_property
    def registry(self) -> Registry:
        """Who is alive."""
        return Registry(self.redis, prefix=self.settings.key_prefix)

    @cached_property
    def singles(self) -> Singles:
        """Single calls through the interactive lane."""
        return Singles(self.settings, self.redis)

    @property
    def client(self) -> Labelmill:
        """The producer's client. Raises :class:`~jobs.errors.BrokerUnavailableError` while Redis is away."""
        with self._lock:
            if self._client is None:
                client = Labelmill(settings=self.settings)
                client.patience = _Impatience()
                self._client = client
            return self._client

    def fleet(self) -> Fleet:
        """The workers, as they were half a second ago at the most."""
        known = self._fleet
        if known is None or time.monotonic() - known[0] > FLEET_S:
            known = self._fleet = (time.monotonic(), Fleet(tuple(self.registry.workers())))
        return known[1]

    def published(self, digest: str) -> ModelInfo:
        """What is known of a model by its digest; it never changes."""
        known = self._published.get(digest)
        if known is None:
            found = self.registry.model(digest)
            if found is None:
                return ModelInfo("unknown", digest)
            known = self._published[digest] = found
        return known

    def version(self, digest: str) -> str:
        """The version that a model says it is."""
        return self.published(digest).version

    def backlog(self) -> dict[str, int]:
        """Images that are queued or leased, by model, as a worker counted them some seconds ago at the most."""
        models = sorted(self.fleet().serving())
        standing = backlog.read(self.redis, models, prefix=self.settings.key_prefix)
        return {model: each.items for model, each in standing.items()}

    def served(self, name: str | None = None) -> list[ModelInfo]:
        """A model as each of its workers serves it; without a name the default, or the only one there is.

        Raises :class:`Problem`: 404 where others are served but not this one, 503 where none is.
        """
        serving = self.fleet().serving()
        if name is None:
            name = self.settings.model_name
            if name not in serving and len(serving) == 1:
                return next(iter(serving.values()))
        else:
            _check_name(name)
        if name in serving:
            return serving[name]
        if not serving:
            raise Problem(503, "model_not_served", "no worker is ready")
        raise Problem(404, "model_not_served", f"no worker serves {name!r}; served are: {', '.join(sorted(serving))}")


def _check_name(name: str) -> None:
    try:
        lanes.check_model_name(name)
    except UsageError as exc:
        raise Problem(422, "bad_model", exc.message) from None
