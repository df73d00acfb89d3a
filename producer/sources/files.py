"""Folders and single files."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from itertools import islice, pairwise
from pathlib import Path

from jobs.errors import SourceError
from jobs.items import MAX_ID_CHARS, Item

__all__ = ["IMAGE_SUFFIXES", "Files"]

IMAGE_SUFFIXES = frozenset((".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".gif", ".webp", ".bmp", ".tif", ".tiff"))
#: A folder of up to this many entries is read in order of its names; a larger one as it lies on disk, so that
#: memory stays bounded.
SORT_LIMIT = 20_000

_UNCARRIABLE = re.compile(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff]")


class Files:
    """Image files under folders (recursive, by suffix) and files named one by one (whatever their suffix).

    The custom_id is the path relative to the folder when one folder is named alone, else the path as it was named.
    Hidden files and folders are passed over, and links to folders are not followed.
    """

    unique = True

    def __init__(self, names: Sequence[str | os.PathLike[str]]) -> None:
        self.names = [os.path.normpath(name) for name in names]
        paths = [os.path.abspath(name) for name in self.names]
        for name, path in zip(self.names, paths, strict=True):
            if not os.path.exists(path):
                raise SourceError(f"no such file or folder: {name}")
            if not os.access(path, os.R_OK):
                raise SourceError(f"not readable: {name}")
        _refuse_overlap(self.names, paths)
        alone = len(paths) == 1 and os.path.isdir(paths[0])
        self.base = paths[0] if alone else ""
        self._roots = [("" if alone else name.lstrip("/"), path) for name, path in zip(self.names, paths, strict=True)]

    @property
    def roots(self) -> tuple[Path, ...]:
        """What workers must be allowed to read."""
        return tuple(Path(path) for _, path in self._roots)

    def __iter__(self) -> Iterator[Item]:
        for name, path in self._roots:
            if os.path.isdir(path):
                yield from _walk(name, path)
            else:
                yield _item(name, path)


def _walk(name: str, folder: str) -> Iterator[Item]:
    with os.scandir(folder) as scan:
        entries = list(islice(scan, SORT_LIMIT))
        few = len(entries) < SORT_LIMIT
        if few:
            entries.sort(key=lambda entry: entry.name)
        yield from _entries(name, entries)
        if not few:
            yield from _entries(name, scan)


def _entries(name: str, entries: Iterator[os.DirEntry[str]] | list[os.DirEntry[str]]) -> Iterator[Item]:
    for entry in entries:
        if entry.name.startswith("."):
            continue
        inner = f"{name}/{entry.name}" if name else entry.name
        if entry.is_dir(follow_symlinks=False):
            yield from _walk(inner, entry.path)
        elif os.path.splitext(entry.name)[1].lower() in IMAGE_SUFFIXES:
            yield _item(inner, entry.path)


def _item(custom_id: str, path: str) -> Item:
    """The item of a file; a name that cannot travel becomes an item that fails, so that nobody misses it."""
    if _UNCARRIABLE.search(path) or len(custom_id) > MAX_ID_CHARS:
        shown = _UNCARRIABLE.sub(lambda match: f"\\x{ord(match[0]) & 0xFF:02x}", custom_id)[:MAX_ID_CHARS]
        return Item(shown, f"invalid:{shown}")
    return Item(custom_id, path)


def _refuse_overlap(names: Sequence[str], paths: Sequence[str]) -> None:
    ordered = sorted(zip((os.path.join(path, "") for path in paths), names, strict=True))
    for (first, name), (second, other) in pairwise(ordered):
        if second.startswith(first):
            raise SourceError(f"{other} is named twice: it is part of {name}")
