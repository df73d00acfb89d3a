"""Several sources as one, URLs named one by one, and images that a program makes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import Any

import orjson

from jobs.errors import SourceError
from jobs.items import MAX_REF_CHARS, Item
from producer.sources.contract import Located, Picture, Source, Upload, is_carriable
from producer.sources.openers import scratch

__all__ = ["Chain", "Pictures", "Urls", "located"]


class Chain:
    """One source after the other."""

    base = ""
    unique = False

    def __init__(self, sources: Sequence[Source]) -> None:
        self.sources = sources

    def ids(self) -> Iterator[tuple[str, str]]:
        """Those of each source."""
        for source in self.sources:
            yield from located(source)

    def __iter__(self) -> Iterator[Picture]:
        for source in self.sources:
            yield from source


class Urls:
    """Images by URL. The custom_id is the URL."""

    base = ""
    unique = False

    def __init__(self, urls: Sequence[str]) -> None:
        for url in urls:
            if not is_carriable(url) or len(url) > MAX_REF_CHARS:
                raise SourceError(f"{url[:80]!a} is too long for a URL, or has control characters")
        self.urls = urls

    def ids(self) -> Iterator[tuple[str, str]]:
        """Each URL with its number."""
        yield from ((url, f"URL {number}") for number, url in enumerate(self.urls, start=1))

    def __iter__(self) -> Iterator[Item]:
        yield from (Item(url, url) for url in self.urls)


def located(source: Source) -> Iterator[tuple[str, str]]:
    """Each custom_id with its place; the number of the image where the source knows no better."""
    if isinstance(source, Located):
        yield from source.ids()
    else:
        yield from ((picture.custom_id, f"image {number}") for number, picture in enumerate(source, start=1))


class Pictures:
    """Images that a program makes: :class:`~jobs.items.Item` by reference, :class:`Upload` by value.

    What can be gone through only once is kept on disk, since ids are compared before anything is sent; with
    ``unique`` they are known not to repeat, and it is sent as it comes. It cannot be sent again then, and a
    :class:`~jobs.errors.SourceError` says so where that is needed.
    """

    base = ""

    def __init__(self, pictures: Iterable[Picture], *, unique: bool = False) -> None:
        self.unique = unique
        self._pictures = pictures
        if isinstance(pictures, Iterator):
            self._pictures = _Once(pictures) if unique else _Kept(pictures)

    def __iter__(self) -> Iterator[Picture]:
        return iter(self._pictures)


class _Once:
    """What an iterator gives; its first image can be looked at before all of it is taken."""

    def __init__(self, pictures: Iterator[Picture]) -> None:
        self._rest = pictures
        self._first: list[Picture] | None = None
        self._taken = False

    def __iter__(self) -> Iterator[Picture]:
        if self._taken:
            raise SourceError("these images can be gone through only once, and sending them was interrupted")
        if self._first is None:
            self._first = list(islice(self._rest, 1))
        yield from self._first
        self._taken = True
        yield from self._rest


class _Kept:
    """What an iterator gave, on disk."""

    def __init__(self, pictures: Iterator[Picture]) -> None:
        self._pictures: Iterator[Picture] | None = pictures
        self._file = scratch(self)

    def __iter__(self) -> Iterator[Picture]:
        if self._pictures is not None:
            for picture in self._pictures:
                self._write(picture)
            self._pictures = None
        self._file.seek(0)
        while length := self._file.read(8):
            head = orjson.loads(self._file.read(int.from_bytes(length, "big")))
            yield self._read(head)

    def _write(self, picture: Picture) -> None:
        data = picture.data if isinstance(picture, Upload) else None
        ref = None if isinstance(picture, Upload) else picture.ref
        size = None if data is None else len(data)
        head = orjson.dumps([picture.custom_id, ref, size, picture.fields])
        self._file.write(len(head).to_bytes(8, "big") + head + (data or b""))

    def _read(self, head: list[Any]) -> Picture:
        custom_id, ref, size, fields = head
        return Item(custom_id, ref, fields) if size is None else Upload(custom_id, self._file.read(size), fields)
