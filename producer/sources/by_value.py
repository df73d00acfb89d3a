"""By reference or by value: what workers can read themselves goes by reference, what only we can read as bytes."""

from __future__ import annotations

import os
import stat
import urllib.error
import urllib.request
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from http.client import HTTPException
from itertools import islice
from typing import Literal

from jobs.errors import (
    FetchTimeoutError,
    ForbiddenError,
    InvalidItemError,
    ItemError,
    NotFoundError,
    TooLargeError,
)
from jobs.items import BROKEN, Item
from producer.sources.chain import located
from producer.sources.contract import Picture, Source, Upload, broken
from producer.sources.openers import file_system, is_url, store_errors

__all__ = ["By", "ByValue", "read_bytes"]

By = Literal["auto", "reference", "value"]
#: Images read at once, and read ahead of the one that is sent.
READERS, READ_AHEAD = 8, 16
#: Seconds that one read over the network may take.
TIMEOUT_S = 30.0


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
        pictures = iter(self.source)
        with ThreadPoolExecutor(READERS, thread_name_prefix="reader") as readers:
            ahead: deque[Picture | Future[Picture]] = deque()
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

    def _start(self, readers: ThreadPoolExecutor, picture: Picture) -> Picture | Future[Picture]:
        if isinstance(picture, Upload) or picture.ref.startswith(BROKEN) or self._readable(picture.ref):
            return picture
        return readers.submit(self._read, picture) if is_url(picture.ref) else self._read(picture)

    def _read(self, item: Item) -> Picture:
        try:
            return Upload(item.custom_id, read_bytes(item.ref, max_bytes=self._max_bytes), item.fields)
        except ItemError as exc:
            return broken(item.custom_id, exc, item.fields)


def read_bytes(ref: str, *, max_bytes: int) -> bytes:
    """The bytes of a path or a URL. Raises an :class:`ItemError` that says why not."""
    try:
        data = _read_url(ref, max_bytes + 1) if is_url(ref) else _read_path(ref, max_bytes + 1)
    except urllib.error.HTTPError as exc:
        raise (ForbiddenError if exc.code in (401, 403) else NotFoundError)() from exc
    except (TimeoutError, urllib.error.URLError) as exc:
        raise FetchTimeoutError() from exc
    except FileNotFoundError as exc:
        raise NotFoundError() from exc
    except PermissionError as exc:
        raise ForbiddenError() from exc
    except HTTPException as exc:
        raise FetchTimeoutError() from exc
    except store_errors() as exc:
        raise InvalidItemError() from exc
    if len(data) > max_bytes:
        raise TooLargeError()
    return data


def _read_path(path: str, limit: int) -> bytes:
    about = os.stat(path)
    if not stat.S_ISREG(about.st_mode):
        raise InvalidItemError()
    if about.st_size >= limit:
        raise TooLargeError()
    with open(path, "rb") as file:
        return file.read(limit)


def _read_url(url: str, limit: int) -> bytes:
    if url.startswith(("http://", "https://")):
        with urllib.request.urlopen(url, timeout=TIMEOUT_S) as answer:
            data: bytes = answer.read(limit)
            return data
    fs, path = file_system(url)
    return bytes(fs.cat_file(path, start=0, end=limit))
