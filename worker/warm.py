"""What is warm in one process: loaded models that have proved themselves, and the way to the ledger.

``set_up`` loads, verifies and warms up; nothing is loaded in a task. A process is set up once.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial
from itertools import chain
from pathlib import Path

from jobs.connection import connect
from jobs.errors import ModelFileError, ModelNotServedError
from jobs.lanes import interactive, served_by
from jobs.ledger import Ledger
from jobs.patience import Patience
from jobs.settings import Settings
from worker.decode import DecodeLimits, decode_into
from worker.engine import ChunkResult, Engine
from worker.fetch import Fetcher
from worker.kernels import kernel
from worker.leases import LeaseKeeper
from worker.metrics import Meter, NoMeter, make_meter
from worker.models import golden, loader
from worker.models.runtime import Runtime
from worker.pace import Work, choice, predicting
from worker.tuning import recall

__all__ = ["Warm", "current", "set_up"]

log = logging.getLogger(__name__)

#: Without a plan: seconds in which predictions of all batch sizes are timed.
TRIAL_S = 0.3


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
    #: Says what this process holds, for whoever watches it; "" for nothing.
    note: Callable[[str], None] = lambda token: None
    #: Says how many images this process has just computed.
    count: Callable[[int], None] = lambda images: None
    #: Whether this process may claim nothing more.
    is_closed: Callable[[], bool] = lambda: False

    def computed(self, model: str, lane: str, done: ChunkResult) -> None:
        """A chunk, or the calls of a batch, were computed; ``lane`` is ``bulk`` or ``interactive``."""
        self.meter.chunk(model, lane, done)
        self.count(done.succeeded + done.failed)

    def engine(self, model: str) -> Engine:
        """The engine of a model by name. Raises :class:`ModelNotServedError`."""
        try:
            return self.engines[model]
        except KeyError:
            raise ModelNotServedError(f"this worker serves {', '.join(self.engines)}, not {model!a}") from None

    def default_engine(self) -> Engine:
        """The engine of the first model, which single calls get that name none."""
        return next(iter(self.engines.values()))

    def queues_before(self, lane: str) -> tuple[str, ...] | None:
        """Every other queue of this worker, for which a turn in a lane ends; None where the ledger cannot see them."""
        if not self.settings.one_redis:
            return None
        return tuple(queue for queue in self._queues if queue != lane)

    @cached_property
    def _queues(self) -> Sequence[str]:
        served = (served_by(name, engine.runtime.digest) for name, engine in self.engines.items())
        return sorted({interactive(self.settings.model_name), *chain.from_iterable(served)})

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


def set_up(
    settings: Settings,
    *,
    note: Callable[[str], None] = lambda token: None,
    count: Callable[[int], None] = lambda images: None,
    is_closed: Callable[[], bool] = lambda: False,
) -> Warm:
    """Load, verify and warm up every model; the second call returns what the first one made.

    ``note`` is told which token's chunk this process holds, for whoever watches it; ``count`` how many images it has
    just computed. ``is_closed`` says whether it may claim nothing more.

    Raises :class:`ModelFileError` (or one of its classes) where a model cannot be served here.
    """
    with _Process.lock:
        if _Process.warm is None:
            _Process.warm = _set_up(settings, note, count, is_closed)
        return _Process.warm


def _set_up(
    settings: Settings, note: Callable[[str], None], count: Callable[[int], None], is_closed: Callable[[], bool]
) -> Warm:
    ledger = Ledger(connect(settings), prefix=settings.key_prefix)
    fetcher = _fetcher(settings)
    limits = DecodeLimits(max_pixels=settings.max_pixels)
    engines: dict[str, Engine] = {}
    rates: dict[str, float] = {}
    for name in settings.models:
        started = time.monotonic()
        runtime = _load(name, settings)
        batch_size, rate = _pace(runtime, settings)
        decoder = partial(decode_into, preprocessing=runtime.card.preprocessing, limits=limits)
        engines[runtime.card.name] = Engine(runtime, decoder, batch_size=batch_size)
        rates[runtime.card.name] = rate
        log.info(
            "model %s %s is warm in process %d after %.2f s on %s in %s: batches of %d, %.0f predictions/s",
            *(runtime.card.name, runtime.digest[:19], os.getpid(), time.monotonic() - started),
            *(runtime.device, runtime.precision, batch_size, rate),
        )
    if kernel() is None and any(engine.runtime.decodes for engine in engines.values()):
        log.info(
            "nothing of decoding is compiled (no C compiler was there, or no AVX2 is): images are resized by NumPy, in "
            "three times the time, and PNGs are read by Pillow, in up to four times"
        )
    meter = make_meter(settings)
    keeper = LeaseKeeper(ledger, lease_s=settings.lease_s, meter=meter, note=note)
    keeper.start()
    return Warm(settings, ledger, keeper, Patience(), fetcher, engines, rates, meter, note, count, is_closed)


def _pace(runtime: Runtime, settings: Settings) -> tuple[int, float]:
    """The batch size to work with, and the images/s of one stream: as told, as measured before, or measured now."""
    if settings.batch_size:
        return settings.batch_size, Work(runtime, settings.batch_size).run(settings.batch_size, 0.0)
    plan = recall(runtime.digest, settings.device) if settings.tune == "auto" else None
    if plan and (plan.device, plan.best.threads) == (runtime.device, settings.threads or 1):
        Work(runtime, plan.best.batch_size)  # the first of a size allocates
        return plan.best.batch_size, plan.stream_images_per_s
    rates = predicting(runtime, seconds=TRIAL_S)
    size = choice(rates)
    return size, rates[size]


def _load(name: str, settings: Settings) -> Runtime:
    model_dir = Path(settings.model_dir) if settings.model_dir else None
    runtime = loader.load(name, threads=settings.threads or 1, device=settings.device, model_dir=model_dir)
    golden.verify(runtime)
    runtime.shrink()  # its samples may be more than a batch
    return runtime


def _fetcher(settings: Settings) -> Fetcher:
    return Fetcher(
        file_roots=settings.file_roots,
        url_hosts=settings.url_hosts,
        max_bytes=settings.max_bytes,
        timeout_s=settings.fetch_timeout_s,
    )
