"""Object stores through fsspec: ``s3://bucket/prefix``, and whatever else fsspec knows."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from jobs.errors import SourceError
from jobs.items import Item
from producer.sources.contract import is_carriable, unnamable
from producer.sources.openers import file_system, store_errors
from producer.sources.patterns import Pattern, is_image, is_pattern

__all__ = ["Objects"]

#: Objects of one page of a listing: what is held in memory at a time.
PAGE = 1000


class Objects:
    """The images under a prefix (by suffix), of a pattern, or one object (whatever its suffix), listed page by page.

    The custom_id is the key relative to the prefix when it is named alone, else the whole URL. Raises
    :class:`SourceError` where the store or the bucket cannot be read.
    """

    unique = True

    def __init__(self, url: str, *, alone: bool = True) -> None:
        self.url = url.rstrip("/")
        self._named = url
        self.alone = alone
        self._pattern = Pattern(self.url) if is_pattern(self.url) else None
        self.base = self._pattern.folder if self._pattern else self.url
        self._fs, self._root = file_system(self.base)
        self._root = self._root.rstrip("/")

    def ids(self) -> Iterator[tuple[str, str]]:
        """Each custom_id with the object's URL."""
        for item in self:
            yield item.custom_id, item.ref

    def __iter__(self) -> Iterator[Item]:
        try:
            yield from self._items()
        except store_errors() as exc:
            raise SourceError(f"cannot read {self._named}: {exc or type(exc).__name__}") from None

    def _items(self) -> Iterator[Item]:
        found = False
        for key in _keys(self._fs, self._root):
            found = True
            inner = key[len(self._root) + 1 :]
            if self._pattern.matches(inner) if self._pattern else is_image(inner):
                yield self._item(inner)
        if not found and not self._pattern:
            if not self._fs.exists(self._root):
                raise FileNotFoundError("there is no such object, and nothing under it")
            yield Item(self.url.rpartition("/")[2] if self.alone else self.url, self.url)

    def _item(self, inner: str) -> Item:
        ref = f"{self.base}/{inner}"
        custom_id = inner if self.alone else ref
        return Item(custom_id, ref) if is_carriable(ref) else unnamable(custom_id)


def _keys(fs: Any, root: str) -> Iterator[str]:
    """Paths of all objects under a folder, in order where the store has one; memory is that of one page."""
    if "s3" in _protocols(fs):
        yield from _s3_keys(fs, root)
        return
    for folder, _, names in fs.walk(root):
        yield from (f"{folder.rstrip('/')}/{name}" for name in sorted(names) if name)


def _s3_keys(fs: Any, root: str) -> Iterator[str]:
    """s3fs lists a whole prefix at once; this asks for page after page."""
    bucket, _, prefix = root.partition("/")
    token: dict[str, str] = {}
    while True:
        page = fs.call_s3(
            "list_objects_v2", Bucket=bucket, Prefix=f"{prefix}/" if prefix else "", MaxKeys=PAGE, **token
        )
        yield from (f"{bucket}/{entry['Key']}" for entry in page.get("Contents", ()) if not entry["Key"].endswith("/"))
        if not page.get("IsTruncated"):
            return
        token = {"ContinuationToken": page["NextContinuationToken"]}


def _protocols(fs: Any) -> tuple[str, ...]:
    return (fs.protocol,) if isinstance(fs.protocol, str) else tuple(fs.protocol)
