"""Zip and tar archives: read as a stream, never unpacked to disk. Their images travel by value."""

from __future__ import annotations

import lzma
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import PurePosixPath
from typing import IO, Any, TypeVar, cast

from jobs.errors import CorruptImageError, SourceError, TooLargeError
from producer.sources.contract import Picture, Upload, broken, is_carriable, unnamable
from producer.sources.openers import Opener, opener, suffixes
from producer.sources.patterns import is_image

__all__ = ["Archive", "is_archive", "is_archive_head"]

#: Endings of archives. A tar may be compressed.
SUFFIXES = (".zip", ".tar", ".tgz", ".tbz2", ".txz", ".tar.gz", ".tar.bz2", ".tar.xz")
#: What a damaged archive raises, and what one member of a zip does that leaves the others whole. A tar is a stream:
#: what is damaged in it ends it.
_DAMAGED = (zipfile.BadZipFile, tarfile.TarError, zlib.error, lzma.LZMAError, EOFError, OSError, NotImplementedError)
_DAMAGED_MEMBER = (zipfile.BadZipFile, zlib.error)

T = TypeVar("T")


def is_archive(name: str) -> bool:
    """True where a name has an archive's suffix."""
    return suffixes(name).endswith(SUFFIXES)


def is_archive_head(head: bytes) -> bool:
    """True where a file's first bytes are those of a zip or a tar, compressed or not."""
    return head.startswith((b"PK\x03\x04", b"\x1f\x8b", b"BZh", b"\xfd7zXZ\x00")) or head[257:262] == b"ustar"


class Archive:
    """The image files in an archive, by suffix, in its order. The custom_id is the member's path."""

    base = ""
    unique = False

    def __init__(self, name: str, *, prefix: str = "", max_bytes: int = 64 << 20, open_: Opener | None = None) -> None:
        self.name = name
        self.prefix = prefix
        self.max_bytes = max_bytes
        self._open = open_ or opener(name)

    def ids(self) -> Iterator[tuple[str, str]]:
        """Each custom_id with the number of its image."""
        for number, member in enumerate(self._walk(_Member.name_of), start=1):
            yield self._custom_id(member), f"image {number} of {self.name}"

    def __iter__(self) -> Iterator[Picture]:
        return self._walk(self._picture)

    def _custom_id(self, member: str) -> str:
        name = self.prefix + member
        return name if is_carriable(name) else unnamable(name).custom_id

    def _picture(self, member: _Member) -> Picture:
        if not is_carriable(self.prefix + member.name):
            return unnamable(self.prefix + member.name)
        custom_id = self.prefix + member.name
        if member.size > self.max_bytes:
            return broken(custom_id, TooLargeError())
        try:
            data = member.read(self.max_bytes + 1)  # the archive may lie about the size
        except _DAMAGED_MEMBER:
            return broken(custom_id, CorruptImageError())
        return broken(custom_id, TooLargeError()) if len(data) > self.max_bytes else Upload(custom_id, data)

    def _walk(self, take: Callable[[_Member], T]) -> Iterator[T]:
        """What ``take`` makes of each image; it is called while the archive stands at that image."""
        last = "its beginning"
        with closing(self._open()) as file:
            try:
                for member in _members(file):
                    taken = take(member)
                    last = member.name
                    yield taken
            except _DAMAGED as exc:
                raise SourceError(f"{self.name} is damaged after {last}: {exc or type(exc).__name__}") from None


@dataclass(frozen=True)
class _Member:
    """An image in an archive: its path, its size as the archive says, and how to read up to so many bytes."""

    name: str
    size: int
    read: Callable[[int], bytes]

    def name_of(self) -> str:
        return self.name


def _members(file: IO[bytes]) -> Iterator[_Member]:
    zipped = file.read(2) == b"PK"
    file.seek(0)
    return _zip_members(file) if zipped else _tar_members(file)


def _zip_members(file: IO[bytes]) -> Iterator[_Member]:
    with zipfile.ZipFile(file) as archive:
        for info in archive.infolist():
            if info.is_dir() or not _wanted(info.filename):
                continue
            if info.flag_bits & 1:
                raise zipfile.BadZipFile(f"{info.filename} is encrypted")
            yield _Member(info.filename, info.file_size, partial(_read_zipped, archive, info))


def _read_zipped(archive: zipfile.ZipFile, info: zipfile.ZipInfo, limit: int) -> bytes:
    with archive.open(info) as stream:
        return stream.read(limit)


def _tar_members(file: IO[bytes]) -> Iterator[_Member]:
    with tarfile.open(fileobj=file, mode="r|*") as archive:
        for info in archive:
            if info.isfile() and _wanted(info.name):
                yield _Member(info.name.removeprefix("./"), info.size, partial(_read_tarred, archive, info))
            cast("Any", archive).members.clear()  # else it keeps every header it has read


def _read_tarred(archive: tarfile.TarFile, info: tarfile.TarInfo, limit: int) -> bytes:
    stream = archive.extractfile(info)
    return stream.read(limit) if stream else b""


def _wanted(name: str) -> bool:
    parts = PurePosixPath(name).parts
    return is_image(name) and not any(part.startswith(".") or part == "__MACOSX" for part in parts)
