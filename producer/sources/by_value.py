"""By reference or by value: what workers can read themselves goes by reference, what only we can read as bytes."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from typing import Literal

from jobs.errors import ItemError
from jobs.items import BROKEN, Item
from producer.sources.chain import located
from producer.sources.contract import Named, Picture, Source, Upload, broken, spelled_out
from producer.sources.openers import is_url
from producer.sources.reading import read_bytes

__all__ = ["By", "ByValue"]

By = Literal["auto", "reference", "value"]
#: Images read at once, and read ahead of the one that is sent.
READERS, READ_AHEAD = 8, 16


class ByValue:
    """A source whose images travel by value, but for those that workers can read.

    ``readable`` says of a reference whether they can; none by default. An image that cannot be read becomes an item
    that fails with the reason.
    """

    def __init__(
        self, source: Source, *, readable: Callable[[str], bool] = lambda ref: False, max_bytes: int = 64 << 20
    ) -> None:
        self.source = source
        self.base = source.base
        self.unique = source.unique
        self._readable = readable
        self._max_bytes = max_bytes

    def ids(self) -> Iterator[tuple[str, str]]:
        """Those of the source."""
        return located(self.source)

    def __iter__(self) -> Iterator[Picture]:
        """In the source's order; a few are read ahead, so that a slow store is asked for several at once."""
        return spelled_out(self.named(), self.base)

    def named(self) -> Iterator[Picture | str]:
        """The same; a custom_id alone where the source names it so and workers can read it."""
        is_readable = self.base and self._readable(f"{self.base}/.")
        pictures = self.source.named() if is_readable and isinstance(self.source, Named) else iter(self.source)
        with ThreadPoolExecutor(READERS, thread_name_prefix="reader") as readers:
            ahead: deque[Picture | str | Future[Picture]] = deque()
            try:
                while True:
                    for picture in islice(pictures, READ_AHEAD - len(ahead)):
                        ahead.append(self._start(readers, picture))
                    if not ahead:
                        return
                    first = ahead.popleft()
                    yield first.result() if isinstance(first, Future) else first
            finally:
                for waiting in ahead:
                    if isinstance(waiting, Future):
                        waiting.cancel()

    def _start(self, readers: ThreadPoolExecutor, picture: Picture | str) -> Picture | str | Future[Picture]:
        if isinstance(picture, str | Upload) or picture.ref.startswith(BROKEN) or self._readable(picture.ref):
            return picture
        return readers.submit(self._read, picture) if is_url(picture.ref) else self._read(picture)

    def _read(self, item: Item) -> Picture:
        try:
            return Upload(item.custom_id, read_bytes(item.ref, max_bytes=self._max_bytes), item.fields)
        except ItemError as exc:
            return broken(item.custom_id, exc, item.fields)
