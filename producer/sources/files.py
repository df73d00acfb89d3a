"""Folders, single files, and patterns of files."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import islice, pairwise
from operator import attrgetter

from jobs.errors import SourceError
from jobs.items import MAX_ID_CHARS, UNCARRIABLE, Item
from jobs.reach import beyond
from producer.sources.contract import spelled_out, unnamable
from producer.sources.patterns import IMAGE_SUFFIXES, Pattern, is_image, is_pattern

__all__ = ["IMAGE_SUFFIXES", "Files"]

#: A folder of fewer entries is read in order of its names; a larger one so many at a time, in order of their inodes, so
#: that memory stays bounded. File systems list names as their hashes fall, and keep what the files hold as they were
#: made: read in that order, they are found sooner.
SORT_LIMIT = 20_000
#: Entries of a folder that are looked at together.
TOGETHER = 1000


@dataclass(frozen=True)
class _Root:
    """One name of the command line, and where it is."""

    name: str
    path: str
    is_folder: bool
    pattern: Pattern | None = None


class Files:
    """Image files under folders (recursive, by suffix), files named one by one (whatever their suffix), and patterns.

    The custom_id is the path relative to the folder when one folder (or pattern) is named alone, else the path as it
    was named. Hidden files and folders are passed over, and links to folders are not followed. ``among_others``: more
    is submitted beside these, so that even one folder alone shows its name.
    """

    def __init__(self, names: Sequence[str | os.PathLike[str]], *, among_others: bool = False) -> None:
        self.names = [os.path.normpath(name) for name in names]
        roots = [_root(name) for name in self.names]
        _refuse_overlap([root for root in roots if not root.pattern])
        self._is_alone = len(roots) == 1 and not among_others and roots[0].is_folder
        # of a folder whose own name cannot travel no image can be asked for
        self.base = roots[0].path if self._is_alone and not UNCARRIABLE.search(roots[0].path) else ""
        #: Only patterns can name a file twice; folders that do are refused.
        self.unique = len(roots) == 1 or not any(root.pattern for root in roots)
        self._roots = roots

    def ids(self) -> Iterator[tuple[str, str]]:
        """Each custom_id with the file's path, as they lie on disk."""
        for item in spelled_out(self._items(sort_limit=0), self.base):
            yield item.custom_id, item.ref

    def __iter__(self) -> Iterator[Item]:
        return spelled_out(self.named(), self.base)

    def named(self) -> Iterator[Item | str]:
        """Its images; where a reference is ``<base>/<custom_id>``, the custom_id alone."""
        return self._items(sort_limit=SORT_LIMIT)

    def _items(self, *, sort_limit: int) -> Iterator[Item | str]:
        is_based = sort_limit > 0 and self.base.strip("/") != ""
        for root in self._roots:
            name = "" if self._is_alone else root.name.lstrip("/")
            if root.pattern:
                start = len(root.path.rstrip("/")) + 1
                wanted = partial(_is_matched, pattern=root.pattern, start=start)
                yield from _Walk(wanted, sort_limit, is_based).items(name, root.path, root.pattern.depth)
            elif root.is_folder:
                yield from _Walk(_is_image, sort_limit, is_based).items(name, root.path)
            else:
                yield _item(name, beyond(root.path) if os.path.islink(root.path) else root.path)


def _root(name: str) -> _Root:
    pattern = Pattern(name) if is_pattern(name) and not os.path.lexists(name) else None
    shown = pattern.folder if pattern else name
    path = os.path.abspath(shown)
    try:
        is_folder = stat.S_ISDIR(os.stat(path).st_mode)
    except (OSError, ValueError):  # ValueError: a NUL in the path
        raise SourceError(f"no such file or folder: {shown}") from None
    if not os.access(path, os.R_OK):
        raise SourceError(f"not readable: {shown}")
    return _Root(shown, path, is_folder, pattern)


def _is_image(entry: os.DirEntry[str]) -> bool:
    return is_image(entry.name)


def _is_matched(entry: os.DirEntry[str], *, pattern: Pattern, start: int) -> bool:
    return pattern.matches(entry.path[start:])


@dataclass(frozen=True)
class _Walk:
    """Goes through a folder and those below it.

    ``wanted`` says which files are taken; ``is_based``: of most the custom_id alone will do, see :meth:`Files.named`.
    """

    wanted: Callable[[os.DirEntry[str]], bool]
    sort_limit: int
    is_based: bool

    def items(self, name: str, folder: str, depth: int | None = None) -> Iterator[Item | str]:
        try:
            scan = os.scandir(folder)
        except OSError as exc:
            raise SourceError(f"cannot list {name or folder}: {exc.strerror}") from None
        with scan:
            for entries in self._blocks(scan):
                yield from self._entries(name, entries, depth)

    def _blocks(self, scan: Iterator[os.DirEntry[str]]) -> Iterator[Iterable[os.DirEntry[str]]]:
        """What a folder holds, in the order that it is read in."""
        if not self.sort_limit:
            yield scan
            return
        entries = list(islice(scan, self.sort_limit))
        order = attrgetter("name") if len(entries) < self.sort_limit else os.DirEntry.inode
        while entries:
            entries.sort(key=order)
            yield entries
            entries = list(islice(scan, self.sort_limit))

    def _entries(self, name: str, entries: Iterable[os.DirEntry[str]], depth: int | None) -> Iterator[Item | str]:
        if not self.is_based:
            yield from self._one_by_one(name, entries, depth)
            return
        left = iter(entries)
        while few := list(islice(left, TOGETHER)):
            plain = self._plain(name, few)
            yield from self._one_by_one(name, few, depth) if plain is None else plain

    def _plain(self, name: str, few: Sequence[os.DirEntry[str]]) -> list[str] | None:
        """Their custom_ids, where all are files that are taken and whose names can travel; else ``None``."""
        found = [entry.name for entry in few if entry.is_file(follow_symlinks=False) and self.wanted(entry)]
        together = "/".join(["", *found])
        if len(found) < len(few) or "/." in together or not together.isprintable():  # folders, links, hidden files
            return None
        if name:
            found = [f"{name}/{inner}" for inner in found]
        return found if name.isprintable() and max(map(len, found)) <= MAX_ID_CHARS else None

    def _one_by_one(self, name: str, entries: Iterable[os.DirEntry[str]], depth: int | None) -> Iterator[Item | str]:
        for entry in entries:
            inner = entry.name
            if inner[0] == ".":
                continue
            if name:
                inner = f"{name}/{inner}"
            if entry.is_dir(follow_symlinks=False):
                if depth is None or depth > 1:
                    yield from self.items(inner, entry.path, depth and depth - 1)
            elif self.wanted(entry):
                yield _item(inner, beyond(entry.path) if entry.is_symlink() else entry.path)


def _item(custom_id: str, path: str) -> Item:
    """The item of a file; a name that cannot travel becomes an item that fails, so that nobody misses it."""
    if len(custom_id) > MAX_ID_CHARS or (not path.isprintable() and UNCARRIABLE.search(path)):
        return unnamable(custom_id)
    return Item(custom_id, path)


def _refuse_overlap(roots: Sequence[_Root]) -> None:
    ordered = sorted((os.path.join(root.path, ""), root.name) for root in roots)
    for (first, name), (second, other) in pairwise(ordered):
        if second.startswith(first):
            raise SourceError(f"{other} is named twice: it is part of {name}")
