"""The backlog of each model: how many images wait, and how long the workers of today need for them.

Every worker has a :class:`BacklogWatch`; each few seconds one of them looks, and writes plain numbers that a scaler
can read without knowing us:

    <prefix>backlog:<model>          seconds until all is done at the rate of today
    <prefix>backlog_items:<model>    images that are queued or leased

Both lapse when nobody looks any more, so that a scaler never acts on an old figure. Seconds are images over processes
over the rate of one process. That rate is measured while work waits, smoothed; before there was any, it is what the
workers measured at their warm-up, and without a worker as if there were one process.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any, cast

import orjson
import redis

from jobs import lanes
from jobs.registry import Registry, WorkerInfo
from jobs.ticking import Ticking

if TYPE_CHECKING:
    from jobs.tickets import Bell

__all__ = ["Backlog", "BacklogWatch", "Look", "Seen", "measure", "measured_rate", "read"]

#: Seconds between two looks.
LOOK_S = 2.0
#: Seconds that a figure stands without a new look.
STANDS_S = 30
#: Seconds after which a change of the rate has made up most of the estimate.
SMOOTHING_S = 10.0
#: Images a second of one process of which nothing is known.
UNKNOWN_RATE = 1.0


@dataclass(frozen=True)
class Backlog:
    """What waits for a model: ``items`` queued or leased, ``seconds`` until they are done."""

    items: int
    seconds: float


@dataclass(frozen=True)
class Look:
    """What was seen at ``at_s``: what of the open jobs was ``done``, which were ``waiting``, how fast models are.

    Rates are images/s of one process; ``rates`` were measured under load, ``warm_up_rates`` are what workers found at
    their start.
    """

    at_s: float = 0.0
    done: Mapping[str, int] = field(default_factory=dict)
    waiting: Sequence[str] = ()
    rates: Mapping[str, float] = field(default_factory=dict)
    warm_up_rates: Mapping[str, float] = field(default_factory=dict)

    @classmethod
    def from_json(cls, raw: bytes | None) -> Look:
        """What was written, maybe by another version; an empty one where nothing was."""
        known = orjson.loads(raw) if raw else {}
        return cls(**{each.name: known[each.name] for each in fields(cls) if each.name in known})


@dataclass(slots=True)
class Seen:
    """The work of one model now, and the processes that serve it.

    ``finished`` since the last look; ``saturated`` where work of one job waited then, and waits now.
    """

    queued: int = 0
    leased: int = 0
    finished: int = 0
    saturated: bool = False
    processes: int = 0
    warm_up_rate: float = 0.0


def measured_rate(client: redis.Redis, model: str, *, prefix: str = "lm:") -> float:
    """Images/s of one process of a model under load, as the last look found; 0 where nobody looks."""
    raw = cast("bytes | None", client.get(f"{prefix}backlog_look"))
    return float(Look.from_json(raw).rates.get(model, 0.0))


def measure(seen: Seen, before: float, elapsed_s: float) -> float:
    """Images a second of one process under load: smoothed where work waited all the time, else as ``before``.

    0 where it was never measured: what a worker found at its start, beside others that started, weighs nothing then.
    """
    if seen.saturated and seen.processes and seen.finished and elapsed_s > 0:
        measured = seen.finished / elapsed_s / seen.processes
        weight = 1.0 - math.exp(-elapsed_s / SMOOTHING_S) if before else 1.0
        return before + weight * (measured - before)
    return before


class BacklogWatch(Ticking):
    """Looks at the backlog in a thread of its own between :meth:`start` and :meth:`stop`."""

    def __init__(self, client: redis.Redis, bell: Bell, *, prefix: str = "lm:") -> None:
        self.redis = client
        self.registry = Registry(client, prefix=prefix)
        self.bell = bell
        self.prefix = prefix
        super().__init__(self._look_in_turn, LOOK_S, name="backlog")

    def look(self) -> dict[str, Backlog]:
        """One look, written down; a handful of round trips."""
        raw = cast("bytes | None", self.redis.get(f"{self.prefix}backlog_look"))
        before = Look.from_json(raw)
        seconds, micros = self.redis.time()
        now = seconds + micros / 1e6
        seen: dict[str, Seen] = {}
        self._serving(seen)
        done, waiting = self._jobs(seen, before)
        self._interactive(seen)
        rates = {m: measure(each, before.rates.get(m, 0.0), now - before.at_s) for m, each in seen.items()}
        warm_up = {**before.warm_up_rates, **{m: each.warm_up_rate for m, each in seen.items() if each.warm_up_rate}}
        found = {m: _backlog(each, rates[m] or warm_up.get(m, UNKNOWN_RATE)) for m, each in seen.items()}
        self._write(found, Look(now, done, waiting, {**before.rates, **rates}, warm_up))
        return found

    def _serving(self, seen: dict[str, Seen]) -> None:
        for worker in self.registry.workers():
            if worker.is_serving:
                _count(worker, seen)

    def _jobs(self, seen: dict[str, Seen], before: Look) -> tuple[dict[str, int], list[str]]:
        """Count the open jobs, and what was finished since ``before`` of those that were open then.

        Returns what of them is done, and which wait.
        """
        open_jobs = [job.decode() for job in cast("list[bytes]", self.redis.zrange(f"{self.prefix}deadlines", 0, -1))]
        jobs = list(dict.fromkeys([*open_jobs, *before.done]))
        with self.redis.pipeline(transaction=False) as pipe:
            for job in jobs:
                pipe.hmget(f"{self.prefix}job:{job}", "model", "queued", "leased", "succeeded", "failed", "state")
            rows = pipe.execute()
        done: dict[str, int] = {}
        waiting: list[str] = []
        is_complete = all(row[0] is not None for row in rows)  # nobody knows what was done of a deleted job
        for job, (model, *numbers, state) in zip(jobs, rows, strict=True):
            if model is None:
                continue
            queued, leased, succeeded, failed = (int(number or 0) for number in numbers)
            each = seen.setdefault(model.decode(), Seen())
            each.queued += queued
            each.leased += leased
            each.finished += max(0, succeeded + failed - before.done.get(job, 0))
            each.saturated |= is_complete and queued > 0 and job in before.waiting
            if state != b"ended":
                done[job] = succeeded + failed
            if queued:
                waiting.append(job)
        return done, waiting

    def _interactive(self, seen: dict[str, Seen]) -> None:
        for model, each in seen.items():
            each.queued += self.bell.waiting(lanes.interactive(model))

    def _write(self, found: Mapping[str, Backlog], look: Look) -> None:
        with self.redis.pipeline(transaction=False) as pipe:
            pipe.set(f"{self.prefix}backlog_look", orjson.dumps(look), ex=STANDS_S)
            for model, backlog in found.items():
                pipe.set(f"{self.prefix}backlog:{model}", f"{backlog.seconds:.1f}", ex=STANDS_S)
                pipe.set(f"{self.prefix}backlog_items:{model}", backlog.items, ex=STANDS_S)
            pipe.execute()

    def _look_in_turn(self) -> None:
        """One look in each period, whoever makes it."""
        if self.redis.set(f"{self.prefix}backlog_turn", b"1", nx=True, px=int(LOOK_S * 900)):
            self.look()


def read(client: redis.Redis, models: list[str], *, prefix: str = "lm:") -> dict[str, Backlog]:
    """The figures that stand now, by model; one round trip."""
    keys = [f"{prefix}{kind}:{model}" for model in models for kind in ("backlog_items", "backlog")]
    values = cast("list[bytes | None]", client.mget(keys)) if keys else []
    pairs: Any = zip(models, values[0::2], values[1::2], strict=True)
    return {model: Backlog(int(items), float(seconds)) for model, items, seconds in pairs if items and seconds}


def _count(worker: WorkerInfo, seen: dict[str, Seen]) -> None:
    for model in worker.models:
        each = seen.setdefault(model.name, Seen())
        each.processes += worker.processes
        each.warm_up_rate = max(each.warm_up_rate, model.images_per_s)


def _backlog(seen: Seen, rate: float) -> Backlog:
    items = seen.queued + seen.leased
    return Backlog(items, items / rate / max(1, seen.processes))
