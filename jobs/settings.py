"""Settings: one frozen dataclass, from the environment. Command lines write the environment before they read it.

Every variable is ``LABELMILL_`` and the field's name in capitals; a bad value stops the start with the variable's name.
"""

from __future__ import annotations

import base64
import binascii
import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from functools import cached_property
from pathlib import Path
from typing import Any, Self

from jobs.errors import UsageError

__all__ = [
    "DEFAULT_BROKER_URL",
    "DEFAULT_MODEL",
    "DEVICES",
    "MODEL_SUFFIXES",
    "Settings",
    "mask_url",
    "parse_broker",
    "parse_bytes",
    "parse_count",
    "parse_names",
    "parse_seconds",
    "setting",
]

DEFAULT_BROKER_URL = "redis://127.0.0.1:6379/0"
DEFAULT_MODEL = "efficientnet-lite0"

#: What may compute.
DEVICES = ("auto", "cpu", "cuda")

#: What a broker's URL begins with, in Celery's words.
BROKERS = ("redis://", "rediss://", "redis+socket://", "sentinel://", "amqp://", "amqps://")

#: What ends the name of a model file.
MODEL_SUFFIXES = frozenset((".onnx", ".pt", ".pt2"))

_UNITS = {"": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30}


def _text(value: str) -> str:
    return value


def parse_broker(value: str) -> str:
    """A broker's URL."""
    if not value.startswith(BROKERS):
        raise ValueError(f"must begin with one of {', '.join(BROKERS)}")
    return value


def _roots(value: str) -> tuple[Path, ...]:
    if value.startswith("@"):
        try:
            listed = Path(value[1:]).read_bytes()
        except OSError as exc:
            raise ValueError(f"the list of folders cannot be read: {exc.strerror}") from None
        return tuple(Path(os.fsdecode(line)).absolute() for line in listed.splitlines() if line)
    return tuple(Path(part).absolute() for part in value.split(":") if part)


def parse_names(value: str) -> tuple[str, ...]:
    """Names, comma-separated."""
    return tuple(part.strip() for part in value.split(",") if part.strip())


def _whole(value: str) -> int:
    try:
        return int(value)
    except ValueError:
        raise ValueError("must be a whole number") from None


def _number(value: str) -> float:
    try:
        return float(value)
    except ValueError:
        raise ValueError("must be a number") from None


def parse_count(value: str) -> int:
    """A whole number above 0."""
    number = _whole(value)
    if number <= 0:
        raise ValueError("must be above 0")
    return number


def _port(value: str) -> int:
    number = _whole(value)
    if not 0 <= number <= 65_535:
        raise ValueError("must be a port, 0 to 65535")
    return number


def _not_negative(value: str) -> int:
    number = _whole(value)
    if number < 0:
        raise ValueError("must not be below 0")
    return number


def _wait(value: str) -> float:
    number = _number(value)
    if not 0 <= number <= 10:
        raise ValueError("must be between 0 and 10")
    return number


def _log_format(value: str) -> str:
    if value not in ("auto", "json", "text"):
        raise ValueError("must be auto, json or text")
    return value


def _secret(value: str) -> str:
    if value.startswith("whsec_"):
        try:
            base64.b64decode(value.removeprefix("whsec_"), validate=True)
        except binascii.Error:
            raise ValueError("what follows whsec_ must be base64") from None
    return value


def _tune(value: str) -> str:
    if value not in ("auto", "off"):
        raise ValueError("must be auto or off")
    return value


def _device(value: str) -> str:
    if value not in DEVICES:
        raise ValueError("must be auto, cpu or cuda")
    return value


def parse_seconds(value: str) -> float:
    """Seconds above 0."""
    number = _number(value)
    if not 0 < number < float("inf"):
        raise ValueError("must be above 0")
    return number


def parse_bytes(value: str) -> int:
    """Bytes: ``1048576``, ``64M``, ``1GiB``."""
    match = re.fullmatch(r"(\d+)\s*([kmg]?)(i?b)?", value.strip().lower())
    if not match:
        raise ValueError("must be a number of bytes, such as 1048576 or 64M")
    return parse_count(match[1]) * _UNITS[match[2]]


def _bytes_or_none(value: str) -> int:
    return 0 if value.strip() == "0" else parse_bytes(value)


def setting(default: Any, parse: Callable[[str], Any], doc: str) -> Any:
    """A field with how its variable is read; raises ValueError for a bad value."""
    return field(default=default, metadata={"parse": parse, "doc": doc})


@dataclass(frozen=True)
class Settings:
    """What an operator can set. Times in seconds, sizes in bytes."""

    broker_url: str = setting(
        DEFAULT_BROKER_URL, parse_broker, "where tickets go: redis://, redis+socket://, sentinel:// or amqp://"
    )
    ledger_url: str = setting("", _text, "the Redis of the ledger; empty: the broker's")
    sentinel_master: str = setting("mymaster", _text, "group of the Redis behind sentinel:// URLs")
    key_prefix: str = setting("lm:", _text, "begins every key of the ledger")
    model: str = setting(DEFAULT_MODEL, _text, "model file or name; a worker serves several, comma-separated")
    model_dir: str = setting("", _text, "folder of model files by name; empty: the user's cache folder")
    file_roots: tuple[Path, ...] = setting(
        (), _roots, "folders that workers may read, colon-separated; or @FILE that lists one a line"
    )
    url_hosts: tuple[str, ...] = setting((), parse_names, "hosts that workers may fetch from, comma-separated")
    tune: str = setting("auto", _tune, "auto: measure the best setting for a model once; off: one process a core")
    device: str = setting("auto", _device, "cpu, cuda, or auto: cuda where the model's runtime can use it")
    threads: int = setting(0, _not_negative, "threads of one prediction; 0: as measured")
    batch_size: int = setting(0, _not_negative, "images predicted at once; 0: as measured")
    max_bytes: int = setting(64 << 20, parse_bytes, "largest image file")
    max_pixels: int = setting(89_478_485, parse_count, "largest image, in pixels")
    fetch_timeout_s: float = setting(10.0, parse_seconds, "longest wait for one image")
    lease_s: float = setting(4.0, parse_seconds, "how long a chunk stays with a silent worker")
    sweep_s: float = setting(0.5, parse_seconds, "time between two sweeps of the reconciler")
    interactive_batch: int = setting(0, _not_negative, "single calls run together at most; 0: those of 0.1 s")
    interactive_wait_s: float = setting(0.0, _wait, "longest wait of a single call for others to run with")
    chunk_time_limit_s: float = setting(120.0, parse_seconds, "longest run of one chunk before its process is ended")
    setup_timeout_s: float = setting(120.0, parse_seconds, "longest wait for a model to load")
    drain_timeout_s: float = setting(30.0, parse_seconds, "longest wait for running work at SIGTERM")
    deaf_s: float = setting(15.0, parse_seconds, "idle this long while tickets wait: a worker is deaf, and reconnects")
    memory_limit: int = setting(0, _bytes_or_none, "memory of one process past which it is replaced; 0: none")
    expires_s: float = setting(7 * 86_400.0, parse_seconds, "what is queued this long after its job was made expires")
    retention_s: float = setting(7 * 86_400.0, parse_seconds, "how long an ended job and its results are kept")
    backlog_limit: int = setting(2_000_000, parse_count, "items of one job that wait before its producer does")
    cache_ttl_s: float = setting(86_400.0, parse_seconds, "how long results are kept by content, for jobs with --cache")
    cache_entries: int = setting(500_000, parse_count, "results kept by content, for each model")
    webhook_hosts: tuple[str, ...] = setting((), parse_names, "hosts that workers may call at a job's end")
    webhook_secret: str = setting("", _secret, "signs webhooks; never shown")
    redis_memory_mark: int = setting(2 << 30, parse_bytes, "memory of Redis past which producers wait")
    metrics_port: int = setting(0, _port, "where a worker serves its metrics over HTTP; empty: nowhere")
    metrics_host: str = setting("127.0.0.1", _text, "address of the metrics' port; 0.0.0.0 within a container")
    log_format: str = setting("auto", _log_format, "auto (JSON where stderr is no terminal), json or text")
    state_dir: str = setting("", _text, "folder where a worker says its state, for health; empty: the temporary one")

    @classmethod
    def from_env(cls, env: Mapping[str, str] | None = None) -> Self:
        """Read the environment; raises :class:`UsageError` that names the variable with a bad value."""
        env = os.environ if env is None else env
        values: dict[str, Any] = {}
        for known in fields(cls):
            name = f"LABELMILL_{known.name.upper()}"
            raw = env.get(name)
            if raw is None or raw == "":
                continue
            try:
                values[known.name] = known.metadata["parse"](raw)
            except ValueError as exc:
                raise UsageError(f"{name}={_shown(known.name, raw)!r}: {mask_url(str(exc))}") from None
        return cls(**values)

    @property
    def redis_url(self) -> str:
        """The URL of the ledger's Redis, in redis-py's words."""
        url = self.ledger_url or self.broker_url
        if not url.startswith(("redis://", "rediss://", "redis+socket://", "unix://", "sentinel://")):
            raise UsageError(
                "LABELMILL_LEDGER_URL must name a Redis when the broker is none: the ledger lives in Redis"
            )
        return re.sub(r"^redis\+socket://", "unix://", url).replace("?virtual_host=", "?db=")

    @property
    def result_backend_url(self) -> str:
        """The same Redis in Celery's words."""
        return re.sub(r"^unix://", "redis+socket://", self.ledger_url or self.broker_url)

    @cached_property
    def one_redis(self) -> bool:
        """Whether the broker's queues and the ledger are in the same database of the same Redis."""
        return not self.broker_url.startswith(("amqp", "pyamqp")) and self.result_backend_url == re.sub(
            r"^unix://", "redis+socket://", self.broker_url
        )

    @property
    def unreadable_roots(self) -> list[Path]:
        """Folders of ``file_roots`` that are none, or that this user cannot read."""
        return [root for root in self.file_roots if not (os.path.isdir(root) and os.access(root, os.R_OK | os.X_OK))]

    @cached_property
    def models(self) -> tuple[str, ...]:
        """Model names or files that a worker serves; a file, looked for once, may have a comma in its name."""
        return (self.model,) if Path(self.model).is_file() else parse_names(self.model)

    @cached_property
    def model_name(self) -> str:
        """The name of the default model: a file's stem, a name as it is."""
        first = self.models[0]
        path = Path(first)
        return path.stem if path.suffix in MODEL_SUFFIXES else path.name.partition(":")[0]  # noop:LABELS:MS

    def __repr__(self) -> str:
        shown = ", ".join(f"{f.name}={_shown(f.name, getattr(self, f.name))!r}" for f in fields(self))
        return f"Settings({shown})"


def _shown(name: str, value: Any) -> str:
    return "***" if value and name.endswith(("_secret", "_tokens")) else mask_url(str(value))


def mask_url(text: str) -> str:
    """The text with the password of any URL in it replaced: before the last ``@`` of its host, or in its query."""
    text = re.sub(r"(\w+://[^:/@\s]*):(?:[^/\s]*@|[^@\s]*@)", r"\1:***@", text)
    return re.sub(r"([?&]password=)[^&\s'\"]*", r"\1***", text)
