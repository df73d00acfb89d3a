"""Logs: one line for people on a terminal, one JSON object a line everywhere else.

Each record carries the worker, and the job and the chunk that it is about:

    {"time": "2026-11-22T17:12:36.120Z", "level": "WARNING", "logger": "worker.turn", "message": "...",
     "worker": "labelmill-7@host", "pid": 7, "job": "job-1f", "chunk": "12"}
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import UTC, datetime
from typing import TextIO

import orjson

from jobs.settings import mask_url

__all__ = ["JsonFormatter", "TextFormatter", "about", "configure"]

#: What the current thread works on.
_subject: ContextVar[tuple[str, str]] = ContextVar("subject", default=("", ""))
_MARK = "_labelmill"


@contextmanager
def about(job: str, chunk: str) -> Iterator[None]:
    """Records that are made in the block carry this job and this chunk."""
    before = _subject.set((job, chunk))
    try:
        yield
    finally:
        _subject.reset(before)


class JsonFormatter(logging.Formatter):
    """A record as one JSON object; passwords of URLs in it are masked."""

    def __init__(self, worker: str = "") -> None:
        super().__init__()
        self.worker = worker

    def format(self, record: logging.LogRecord) -> str:
        """One line."""
        at = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
        job, chunk = _subject.get()
        fields = {
            "time": at.replace("+00:00", "Z"),
            "level": record.levelname,
            "logger": record.name,
            "message": mask_url(record.getMessage()),
            "worker": self.worker,
            "pid": record.process,
            "job": job,
            "chunk": chunk,
            "error": mask_url(self.formatException(record.exc_info)) if record.exc_info else "",
        }
        return orjson.dumps({key: value for key, value in fields.items() if value}).decode()


class TextFormatter(logging.Formatter):
    """A record as a line for people; job and chunk stand at its end."""

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)-7s %(process)d %(name)s: %(message)s")

    def format(self, record: logging.LogRecord) -> str:
        """One line, and a traceback where there is one."""
        return mask_url(super().format(record))

    def formatMessage(self, record: logging.LogRecord) -> str:
        """The line before any traceback."""
        job, chunk = _subject.get()
        return super().formatMessage(record) + (f" [job {job} chunk {chunk}]" if job else "")


def configure(
    level: int | str = logging.INFO,
    *,
    worker: str = "",
    stream: TextIO | None = None,
    form: str = "auto",
    logger: logging.Logger | None = None,
) -> None:
    """Log to stderr, warnings too, unless somebody has set up the root logger before. ``form``: auto, json or text.

    A second call, in a process that was forked off, changes what the first one made.
    """
    root, stream = logger or logging.getLogger(), stream or sys.stderr
    ours = [handler for handler in root.handlers if getattr(handler, _MARK, False)]
    if root.handlers and not ours:
        return
    for handler in ours:
        root.removeHandler(handler)
    as_json = form == "json" or (form == "auto" and not stream.isatty())
    handler = logging.StreamHandler(stream)
    setattr(handler, _MARK, True)
    handler.setFormatter(JsonFormatter(worker) if as_json else TextFormatter())
    root.addHandler(handler)
    root.setLevel(level)
    if logger is None:
        logging.captureWarnings(True)
