"""Manifests: lists of paths or URLs, as text, CSV or JSON Lines.

Text has one path or URL a line; CSV has a header. In CSV and JSONL ``path`` or ``url`` names the image, ``custom_id``
names it for you, and everything else is yours and comes back with the results.
"""

from __future__ import annotations

import csv
import io
import os
import re
from collections.abc import Callable, Iterator
from contextlib import closing
from typing import IO, Any, cast

import orjson

from jobs.errors import SourceError
from jobs.items import MAX_REF_CHARS, UNCARRIABLE, Item
from jobs.wording import counted
from producer.sources.contract import is_carriable
from producer.sources.openers import Opener, is_url, opener, suffixes

__all__ = ["Manifest", "format_of_head", "manifest_format"]

#: What each suffix means.
SUFFIXES = {".txt": "text", ".csv": "csv", ".tsv": "tsv", ".jsonl": "jsonl", ".ndjson": "jsonl"}
#: The user's own fields of one image, as JSON, in bytes.
MAX_FIELDS_BYTES = 16 << 10
#: Longest line of a manifest, in characters; what is longer is a bad line.
MAX_LINE_CHARS = 64 << 10

#: Says that a line is bad: its place and why.
OnBad = Callable[[str, str], None]


#: What a path may have that is written shorter.
_UNTIDY = re.compile(r"//|(?:^|/)\.\.?(?:/|$)")


class _BadLineError(ValueError):
    """A line that names no image."""


def manifest_format(name: str) -> str | None:
    """The format of a manifest by its suffix; None where it is none."""
    dot = suffixes(name).rfind(".")
    return SUFFIXES.get(suffixes(name)[dot:]) if dot >= 0 else None


def format_of_head(head: bytes) -> str:
    """The format of a manifest by its first line."""
    line = head.lstrip(b"\xef\xbb\xbf \t\r\n").partition(b"\n")[0].strip()
    if line.startswith(b"{"):
        return "jsonl"
    for separator, format in ((b",", "csv"), (b"\t", "tsv")):
        if {b"path", b"url"} & {cell.strip(b' "') for cell in line.split(separator)}:
            return format
    return "text"


class _BadHeaderError(ValueError):
    """A table whose columns do not say where the images are."""


class Manifest:
    """The images of a list. Relative paths are relative to the list's folder. The custom_id is ``custom_id``, else the
    path or the URL as it is written.

    A bad line is told to ``on_bad`` once, and left out. With ``strict`` a bad line is a :class:`SourceError`, raised by
    :meth:`check` after all of them were told.
    """

    unique = False

    def __init__(
        self,
        name: str,
        *,
        format: str | None = None,
        on_bad: OnBad | None = None,
        strict: bool = False,
        open_: Opener | None = None,
        folder: str | None = None,
    ) -> None:
        self.name = name
        self.format = format or manifest_format(name) or "text"
        self.strict = strict
        self.bad = 0
        self.base = _folder(name) if folder is None else folder
        self._on_bad = on_bad
        self._told = False
        self._open = open_ or opener(name)

    def ids(self) -> Iterator[tuple[str, str]]:
        """Each custom_id with its line. With ``strict``, raises :class:`SourceError` at the end if lines are bad."""
        for number, item in self._items():
            yield item.custom_id, f"{self.name}:{number}"
        if self.strict and self.bad:
            raise SourceError(f"{self.name} has {self.bad} bad lines, and --strict was given: nothing was sent")

    def __iter__(self) -> Iterator[Item]:
        for _, item in self._items():
            yield item

    def _items(self) -> Iterator[tuple[int, Item]]:
        bad = 0
        with closing(self._open()) as file:
            for number, record in self._records(file):
                try:
                    if isinstance(record, _BadLineError):
                        raise record
                    if isinstance(record, str):
                        yield number, Item(_checked(record), self._absolute(record))
                    else:
                        yield number, self._item(record)
                except _BadLineError as exc:
                    bad += 1
                    if self._on_bad is not None and not self._told:
                        self._on_bad(f"{self.name}:{number}", str(exc))
        self.bad, self._told = bad, True

    def _records(self, file: IO[bytes]) -> Iterator[tuple[int, Record]]:
        try:
            yield from _READERS[self.format](file)
        except (_BadHeaderError, csv.Error) as exc:
            raise SourceError(f"{self.name}: {exc}") from None
        except OSError as exc:
            raise SourceError(f"cannot read {self.name}: {exc}") from None

    def _item(self, record: dict[str, Any]) -> Item:
        ref, key = _reference(record)
        custom_id = record.get("custom_id") or ref
        if not isinstance(custom_id, str):
            raise _BadLineError("custom_id must be text")
        if not is_carriable(custom_id):
            raise _BadLineError("custom_id is too long or has control characters")
        fields = {name: value for name, value in record.items() if name not in ("custom_id", key)} or None
        if fields and _size(fields) > MAX_FIELDS_BYTES:
            raise _BadLineError(f"its own fields have more than {MAX_FIELDS_BYTES} bytes")
        return Item(custom_id, self._absolute(ref), fields)

    def _absolute(self, ref: str) -> str:
        if ref.startswith("/") or ("://" in ref and is_url(ref)):
            return ref
        if ref.startswith("file:"):
            raise _BadLineError("file: is not read: write the path")
        whole = f"{self.base}/{ref}"
        return os.path.normpath(whole) if _UNTIDY.search(ref) and not is_url(self.base) else whole


def _checked(ref: str) -> str:
    if not is_carriable(ref):
        raise _BadLineError("is too long, is not UTF-8 or has control characters")
    return ref


def _size(fields: dict[str, Any]) -> int:
    try:
        return len(orjson.dumps(fields))
    except TypeError:
        raise _BadLineError("is not UTF-8") from None


def _reference(record: dict[str, Any]) -> tuple[str, str]:
    named = [(record[key], key) for key in ("path", "url") if record.get(key) not in (None, "")]
    if len(named) != 1:
        raise _BadLineError("has both path and url" if named else "has neither path nor url")
    ref, key = named[0]
    if not isinstance(ref, str):
        raise _BadLineError(f"{key} must be text")
    if len(ref) > MAX_REF_CHARS or UNCARRIABLE.search(ref):
        raise _BadLineError(f"{key} is too long, is not UTF-8 or has control characters")
    if key == "url" and not is_url(ref):
        raise _BadLineError("url must begin with http://, https:// or another scheme")
    return ref, key


def _folder(name: str) -> str:
    return name.rpartition("/")[0] if is_url(name) else os.path.dirname(os.path.abspath(name))


# -- readers: (line number, record or what is wrong with it) ---------------------------------------

Record = str | dict[str, Any] | _BadLineError


def _lines(file: IO[bytes]) -> Iterator[tuple[int, str]]:
    """Lines without their ends; what is not UTF-8 comes as surrogates, which no item may have."""
    number = 0
    while line := file.readline(MAX_LINE_CHARS + 1):
        number += 1
        yield number, line.decode("utf-8-sig" if number == 1 else "utf-8", "surrogateescape").rstrip("\r\n")
        while len(line) > MAX_LINE_CHARS and not line.endswith(b"\n"):
            line = file.readline(MAX_LINE_CHARS + 1)  # what was yielded is long enough to be refused


def _read_text(file: IO[bytes]) -> Iterator[tuple[int, Record]]:
    for number, line in _lines(file):
        if len(line) > MAX_REF_CHARS:
            yield number, _BadLineError("is too long")
        elif line := line.strip():
            yield number, line


def _read_jsonl(file: IO[bytes]) -> Iterator[tuple[int, Record]]:
    for number, line in _lines(file):
        if line.strip():
            yield number, _json_record(line)


def _json_record(line: str) -> Record:
    if len(line) > MAX_LINE_CHARS:
        return _BadLineError("is too long")
    try:
        record = orjson.loads(line.encode("utf-8", "surrogateescape"))
    except orjson.JSONDecodeError as exc:
        return _BadLineError(f"is no JSON: {exc}")
    return record if isinstance(record, dict) else _BadLineError("is no JSON object")


def _read_csv(file: IO[bytes], dialect: str = "excel") -> Iterator[tuple[int, Record]]:
    with io.TextIOWrapper(file, "utf-8-sig", "surrogateescape", newline="") as text:
        rows = csv.reader(text, dialect)
        header = next(rows, [])
        if not {"path", "url"} & set(header):
            raise _BadHeaderError(f"the header must name a column 'path' or 'url', not {', '.join(header)[:200]!a}")
        if len(set(header)) != len(header):
            raise _BadHeaderError("the header names a column twice")
        while True:
            try:
                row = next(rows)
            except StopIteration:
                return
            except csv.Error as exc:
                yield rows.line_num, _BadLineError(f"is no CSV: {exc}")
                continue
            if len(row) == len(header):
                yield rows.line_num, cast("Record", dict(zip(header, row, strict=True)))
            elif row:
                yield rows.line_num, _BadLineError(f"has {counted(len(row), 'cell')}, and the header has {len(header)}")


_READERS: dict[str, Callable[[IO[bytes]], Iterator[tuple[int, Record]]]] = {
    "text": _read_text,
    "jsonl": _read_jsonl,
    "csv": _read_csv,
    "tsv": lambda file: _read_csv(file, "excel-tab"),
}
