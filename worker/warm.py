"""What is warm in one process: loaded models that have proved themselves, and the way to the ledger.

``set_up`` loads, verifies and warms up; nothing is loaded in a task. A process is set up once.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np

from jobs.errors import ModelFileError, ModelNotServedError
from jobs.ledger import Ledger, connect
from jobs.patience import Patience
from jobs.settings import Settings
from worker.decode import DecodeLimits, decode_into
from worker.engine import Engine
from worker.fetch import Fetcher
from worker.leases import LeaseKeeper
from worker.metrics import Meter, NoMeter, make_meter
from worker.models import golden, loader
from worker.models.runtime import Runtime

__all__ = ["Warm", "current", "set_up"]

log = logging.getLogger(__name__)

#: Batch sizes tried at warm-up, and the seconds spent on each.
BATCH_SIZES = (1, 2, 4, 8, 16, 32)
TRIAL_S = 0.05
#: A larger batch must be this much faster to be taken: it costs latency and memory.
WORTH_IT = 1.05


@dataclass(frozen=True)
class Warm:
    """A process that is ready to serve."""

    settings: Settings
    ledger: Ledger
    keeper: LeaseKeeper
    patience: Patience
    fetcher: Fetcher
    engines: dict[str, Engine]
    images_per_s: dict[str, float]
    meter: Meter = field(default_factory=NoMeter)

    def engine(self, model: str) -> Engine:
        """The engine of a model by name. Raises :class:`ModelNotServedError`."""
        try:
            return self.engines[model]
        except KeyError:
            raise ModelNotServedError(f"this worker serves {', '.join(self.engines)}, not {model!a}") from None

    def default_engine(self) -> Engine:
        """The engine of the first model, which single calls get that name none."""
        return next(iter(self.engines.values()))

    def engine_of_lane(self, lane: str) -> Engine:
        """The engine of a lane's model."""
        return self.engine(lane.rpartition(".")[0].partition("@")[0])


class _Process:
    """The one warm state of this process; the lock is for pools of threads."""

    warm: Warm | None = None
    lock = threading.Lock()


def current() -> Warm:
    """What :func:`set_up` made in this process."""
    if _Process.warm is None:
        raise ModelFileError("this process was not set up: start it as a Celery worker of tasks.app")
    return _Process.warm


def set_up(settings: Settings, *, note: Callable[[str], None] = lambda token: None) -> Warm:
    """Load, verify and warm up every model; the second call returns what the first one made.

    ``note`` is told which token's chunk this process holds, for whoever watches it.

    Raises :class:`ModelFileError` (or one of its classes) where a model cannot be served here.
    """
    with _Process.lock:
        if _Process.warm is None:
            _Process.warm = _set_up(settings, note)
        return _Process.warm


def _set_up(settings: Settings, note: Callable[[str], None]) -> Warm:
    ledger = Ledger(connect(settings), prefix=settings.key_prefix)
    fetcher = _fetcher(settings)
    limits = DecodeLimits(max_pixels=settings.max_pixels)
    engines: dict[str, Engine] = {}
    rates: dict[str, float] = {}
    for name in settings.models:
        started = time.monotonic()
        runtime = _load(name, settings)
        batch_size, rate = warm_up(runtime)
        decoder = partial(decode_into, preprocessing=runtime.card.preprocessing, limits=limits)
        engines[runtime.card.name] = Engine(runtime, decoder, batch_size=batch_size)
        rates[runtime.card.name] = rate
        log.info(
            "model %s %s is warm in process %d after %.2f s: batches of %d, %.0f predictions/s",
            *(runtime.card.name, runtime.digest[:19], os.getpid()),
            *(time.monotonic() - started, batch_size, rate),
        )
    meter = make_meter(settings)
    keeper = LeaseKeeper(ledger, lease_s=settings.lease_s, meter=meter, note=note)
    keeper.start()
    return Warm(settings, ledger, keeper, Patience(), fetcher, engines, rates, meter)


def warm_up(runtime: Runtime) -> tuple[int, float]:
    """The batch size with the highest rate, and that rate in images/s; takes well under a second."""
    height, width = runtime.card.preprocessing.size
    best, best_rate = 1, 0.0
    for size in BATCH_SIZES:
        images = np.zeros((size, height, width, 3), np.uint8)
        runtime.predict(images)
        rounds, started = 0, time.perf_counter()
        while (elapsed := time.perf_counter() - started) < TRIAL_S:
            runtime.predict(images)
            rounds += 1
        rate = rounds * size / elapsed
        if rate > best_rate * WORTH_IT:
            best, best_rate = size, rate
        elif size > best * 2:
            break
    return best, best_rate


def _load(name: str, settings: Settings) -> Runtime:
    runtime = loader.load(name, model_dir=Path(settings.model_dir) if settings.model_dir else None)
    golden.verify(runtime)
    return runtime


def _fetcher(settings: Settings) -> Fetcher:
    return Fetcher(
        file_roots=settings.file_roots,
        url_hosts=settings.url_hosts,
        max_bytes=settings.max_bytes,
        timeout_s=settings.fetch_timeout_s,
    )
