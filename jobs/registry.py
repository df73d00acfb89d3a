"""Who is alive and which models are served: what workers say of themselves, in Redis.

<prefix>worker:<node>    hash, expires when its worker stops saying that it lives
<prefix>workers          set of nodes that ever said so and were not seen to end
<prefix>model:<digest>   string JSON of name, version and labels, so that producers can name the classes
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, cast

import orjson
import redis

from jobs.reach import Reach

__all__ = ["ModelInfo", "Registry", "WorkerInfo"]

#: Seconds after which a silent worker is no longer listed.
WORKER_TTL_S = 10
#: Seconds that labels outlive the last worker that served them: longer than results do by default.
MODEL_TTL_S = 60 * 86_400


@dataclass(frozen=True)
class ModelInfo:
    """A model as producers see it.

    ``images_per_s`` is of one process, measured at its warm-up; 0 where unknown. ``processes`` are those of the worker
    that serves it.
    """

    name: str
    digest: str
    version: str = "1"
    labels: tuple[str, ...] = ()
    images_per_s: float = 0.0
    processes: int = 0


@dataclass(frozen=True)
class WorkerInfo:
    """One worker node: a Celery worker with its processes.

    ``rate`` is in images a second over the last seconds, ``last_ms`` when its last chunk (or single call) was
    computed: milliseconds since the epoch, 0: never.
    """

    node: str
    state: str
    host: str
    pid: int
    processes: int
    models: tuple[ModelInfo, ...]
    started_ms: int = 0
    rss_bytes: int = 0
    reach: Reach = field(default_factory=Reach)
    rate: float = 0.0
    last_ms: int = 0

    @property
    def is_serving(self) -> bool:
        """Whether it takes work: READY, or BUSY, which is READY with work in hand."""
        return self.state in ("READY", "BUSY")


class Registry:
    """What the workers of one Redis say of themselves."""

    def __init__(self, client: redis.Redis, *, prefix: str = "lm:") -> None:
        self.redis = client
        self.prefix = prefix

    def announce(self, info: WorkerInfo) -> None:
        """Say that a worker lives; to be repeated well within :data:`WORKER_TTL_S`. One round trip."""
        models = [{"name": m.name, "digest": m.digest, "images_per_s": m.images_per_s} for m in info.models]
        values: dict[str | bytes, Any] = {
            "state": info.state,
            "host": info.host,
            "pid": info.pid,
            "processes": info.processes,
            "models": orjson.dumps(models),
            "started_ms": info.started_ms,
            "rss_bytes": info.rss_bytes,
            "reach": orjson.dumps(info.reach.as_json()),
            "rate": round(info.rate, 1),
            "last_ms": info.last_ms,
        }
        key = f"{self.prefix}worker:{info.node}"
        with self.redis.pipeline(transaction=False) as pipe:
            pipe.hset(key, mapping=cast("Mapping[Any, Any]", values))
            pipe.expire(key, WORKER_TTL_S)
            pipe.sadd(f"{self.prefix}workers", info.node)
            pipe.execute()

    def withdraw(self, node: str) -> None:
        """Say that a worker has ended."""
        with self.redis.pipeline(transaction=False) as pipe:
            pipe.delete(f"{self.prefix}worker:{node}")
            pipe.srem(f"{self.prefix}workers", node)
            pipe.execute()

    def workers(self) -> list[WorkerInfo]:
        """Every worker that lives, by name. Two round trips."""
        nodes = sorted(node.decode() for node in cast("set[bytes]", self.redis.smembers(f"{self.prefix}workers")))
        with self.redis.pipeline(transaction=False) as pipe:
            for node in nodes:
                pipe.hgetall(f"{self.prefix}worker:{node}")
            found = list(zip(nodes, pipe.execute(), strict=True))
        silent = [node for node, raw in found if not raw]
        if silent:
            self.redis.srem(f"{self.prefix}workers", *silent)
        return [_worker(node, raw) for node, raw in found if raw]

    def serving(self, model: str, digest: str = "") -> list[ModelInfo]:
        """The model as each worker that takes work serves it; empty where none does."""
        return [
            served
            for worker in self.workers()
            if worker.is_serving
            for served in worker.models
            if served.name == model and (not digest or served.digest == digest)
        ]

    def publish_model(self, info: ModelInfo) -> None:
        """Keep a model's labels where producers find them."""
        text = orjson.dumps({"name": info.name, "version": info.version, "labels": info.labels})
        self.redis.set(f"{self.prefix}model:{info.digest}", text, ex=MODEL_TTL_S)

    def model(self, digest: str) -> ModelInfo | None:
        """A model by its digest; None where nobody has published it."""
        raw = cast("bytes | None", self.redis.get(f"{self.prefix}model:{digest}"))
        if raw is None:
            return None
        known = orjson.loads(raw)
        return ModelInfo(known["name"], digest, known["version"], tuple(known["labels"]))


def _worker(node: str, raw: Mapping[bytes, bytes]) -> WorkerInfo:
    processes = int(raw[b"processes"])
    return WorkerInfo(
        node=node,
        state=raw[b"state"].decode(),
        host=raw[b"host"].decode(),
        pid=int(raw[b"pid"]),
        processes=processes,
        models=tuple(
            ModelInfo(m["name"], m["digest"], images_per_s=m["images_per_s"], processes=processes)
            for m in orjson.loads(raw[b"models"])
        ),
        started_ms=int(raw[b"started_ms"]),
        rss_bytes=int(raw[b"rss_bytes"]),
        reach=Reach.from_json(orjson.loads(raw[b"reach"])) if b"reach" in raw else Reach(),
        rate=float(raw.get(b"rate", 0)),
        last_ms=int(raw.get(b"last_ms", 0)),
    )
