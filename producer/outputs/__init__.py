"""Where labels go: one writer for each format, all with the same two methods."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import IO, Protocol

from jobs.errors import UsageError
from jobs.items import Result
from producer.outputs.csv import CsvWriter
from producer.outputs.jsonl import JsonlWriter
from producer.outputs.target import open_target

__all__ = ["FORMATS", "Writer", "format_of", "open_target", "open_writer"]

FORMATS = ("jsonl", "csv", "parquet")


class Writer(Protocol):
    """Takes results in the order in which they come."""

    def write(self, results: list[Result]) -> None:
        """Write some results."""

    def close(self) -> None:
        """Complete the output; the stream is the caller's to close."""


def open_writer(format: str, stream: IO[bytes], *, top_k: int) -> Writer:
    """The writer of a format onto a binary stream. ``top_k`` is how many labels a row has room for."""
    makers: dict[str, Callable[[], Writer]] = {
        "jsonl": lambda: JsonlWriter(stream),
        "csv": lambda: CsvWriter(stream, top_k),
        "parquet": lambda: _parquet(stream),
    }
    return makers[format]()


def format_of(path: Path) -> str | None:
    """The format that a file's suffix names; None where it names none."""
    return {".jsonl": "jsonl", ".ndjson": "jsonl", ".csv": "csv", ".parquet": "parquet"}.get(path.suffix.lower())


def _parquet(stream: IO[bytes]) -> Writer:
    try:
        from producer.outputs.parquet import ParquetWriter
    except ImportError as exc:
        raise UsageError("Parquet needs pyarrow; install labelmill[parquet]") from exc
    return ParquetWriter(stream)
