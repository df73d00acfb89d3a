"""What commands print: JSON for scripts, tables for people. Results go to stdout, all else to stderr."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import Any

import orjson
from rich.console import Console
from rich.table import Table
from rich.text import Text

from jobs.records import JobStatus
from producer.outputs.table import print_trimmed

__all__ = [
    "ago",
    "errors_console",
    "job_object",
    "print_fields",
    "print_json",
    "print_table",
    "time_of",
]

#: Columns of the longest row.
WIDEST = 1000


def errors_console() -> Console:
    """For stderr: progress, notes, errors."""
    return Console(stderr=True, highlight=False)


def print_json(value: Any, *, indent: bool = True) -> None:
    """One JSON value on stdout; one line of it without ``indent``."""
    option = orjson.OPT_INDENT_2 if indent else 0
    sys.stdout.write(orjson.dumps(value, option=option).decode() + "\n")
    sys.stdout.flush()


def print_table(columns: Sequence[str], rows: Iterable[Sequence[object]], *, numbers: Sequence[str] = ()) -> None:
    """A table on stdout; columns named in ``numbers`` stand to the right. The first, the name, is never broken."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        right = column in numbers
        table.add_column(
            column, justify="right" if right else "left", overflow="fold", no_wrap=right or column == columns[0]
        )
    for row in rows:
        table.add_row(*(Text(str(cell)) for cell in row))
    _print(table)


def print_fields(fields: Iterable[tuple[str, object]]) -> None:
    """Names and values, one a line; empty values are left out."""
    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_column(style="bold")
    table.add_column(overflow="fold")
    for name, value in fields:
        if value not in ("", None):
            table.add_row(name, Text(str(value)))
    _print(table)


def _print(table: Table) -> None:
    """Rows as long as they are: a window that is too narrow for them breaks lines, and no cells."""
    print_trimmed(Console(width=WIDEST, highlight=False), table)


def time_of(ms: int) -> str | None:
    """``2026-11-22T16:59:24Z``; None for 0."""
    return datetime.fromtimestamp(ms / 1000, UTC).strftime("%Y-%m-%dT%H:%M:%SZ") if ms else None


def ago(ms: int) -> str:
    """The time here, for people; empty for 0."""
    return datetime.fromtimestamp(ms / 1000).astimezone().strftime("%Y-%m-%d %H:%M:%S") if ms else ""


def job_object(status: JobStatus) -> dict[str, Any]:
    """A job as scripts see it. Times in UTC, None where there is none."""
    webhook = {"url": status.webhook, "state": status.webhook_state or "waiting", "attempts": status.webhook_attempts}
    return {
        "id": status.job,
        "state": status.state,
        "sealed": status.sealed,
        "model": status.model,
        "digest": status.digest or None,
        "top_k": status.top_k,
        "request_counts": status.request_counts,
        "metadata": status.metadata,
        "created_at": time_of(status.created_ms),
        "expires_at": time_of(status.expires_ms),
        "ended_at": time_of(status.ended_ms),
        "chunks": status.chunks,
        "recovered": status.recovered,
        "late_finishes": status.late_finishes,
        "cache_hits": status.cache_hits if status.cache else None,
        "webhook": webhook if status.webhook else None,
    }
