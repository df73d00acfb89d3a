"""Several sources as one, and URLs named one by one."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from jobs.errors import SourceError
from jobs.items import MAX_REF_CHARS, Item
from producer.sources.contract import Located, Picture, Source, is_carriable

__all__ = ["Chain", "Urls", "located"]


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
