"""Where labels go: one writer for each format, all with the same two methods."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path, PurePosixPath
from typing import IO

from jobs.errors import UsageError
from producer.outputs.contract import Writer
from producer.outputs.csv import CsvWriter
from producer.outputs.jsonl import JsonlWriter
from producer.outputs.target import open_target

__all__ = ["FORMATS", "Writer", "format_of", "named_format", "open_target", "open_writer"]

FORMATS = ("jsonl", "csv", "parquet")
SUFFIXES = {".jsonl": "jsonl", ".ndjson": "jsonl", ".csv": "csv", ".parquet": "parquet"}


def open_writer(
    format: str, stream: IO[bytes], *, top_k: int, columns: Sequence[str] | None = None, header: bool = True
) -> Writer:
    """The writer of a format onto a binary stream. ``top_k`` is how many labels a row has room for.

    ``columns``: the user's own fields in tables, each in a column and the rest in one more; without, none of them.
    """
    makers: dict[str, Callable[[], Writer]] = {
        "jsonl": lambda: JsonlWriter(stream),
        "csv": lambda: CsvWriter(stream, top_k, columns=columns, header=header),
        "parquet": lambda: _parquet(stream, columns),
    }
    return makers[format]()


def named_format(path: Path | str) -> str | None:
    """The format that the suffix of a file or URL names, if any."""
    return SUFFIXES.get(PurePosixPath(path).suffix.lower())


def format_of(path: Path | str) -> str | None:
    """As :func:`named_format`; None only where there is no suffix, or one of any text.

    Raises :class:`~jobs.errors.UsageError` where the suffix promises another format, as ``.xlsx`` or ``.gz``.
    """
    suffix, named = PurePosixPath(path).suffix.lower(), named_format(path)
    if named is None and suffix not in ("", ".txt"):
        raise UsageError(f"{path}: no format ends in {suffix}; say --format jsonl, csv or parquet to write it anyway")
    return named


def _parquet(stream: IO[bytes], columns: Sequence[str] | None) -> Writer:
    try:
        from producer.outputs.parquet import ParquetWriter
    except ImportError as exc:
        raise UsageError("Parquet needs pyarrow; install labelmill[parquet]") from exc
    return ParquetWriter(stream, columns=columns)
