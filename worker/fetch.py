"""From a reference to the bytes of an image file: a path, a URL, an object or a blob; only what is allowed."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from jobs.asking import retry
from jobs.errors import InvalidItemError, NotFoundError, TooLargeError
from jobs.guard import Guard
from jobs.items import BROKEN, UNCARRIABLE
from worker.roots import Roots
from worker.stores import Stores
from worker.urls import Resolve, Urls, resolve

__all__ = ["BLOB", "Fetcher", "is_remote"]

#: Begins the reference of bytes that someone else holds; the key follows.
BLOB = "blob:"
_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://")


class Fetcher:
    """Fetches the images of one process; its threads may share it.

    ``file_roots`` are folders that may be read; ``url_hosts`` are hosts that may be asked, see
    :class:`jobs.guard.Guard`, and buckets (``s3://photos``), see :class:`worker.stores.Stores`; none of either allows
    nothing. ``timeout_s`` is the longest wait for one URL, retries included. ``blobs`` gives the bytes of a ``blob:``
    reference, or ``None``. Raises :class:`~jobs.errors.UsageError` where a host cannot be one.
    """

    def __init__(
        self,
        *,
        file_roots: Sequence[Path] = (),
        url_hosts: Sequence[str] = (),
        max_bytes: int = 64 << 20,
        timeout_s: float = 10.0,
        blobs: Callable[[str], bytes | None] | None = None,
        resolve: Resolve = resolve,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self.max_bytes = max_bytes
        self.timeout_s = timeout_s
        self._roots = Roots(file_roots, max_bytes=max_bytes)
        hosts = [host for host in url_hosts if "://" not in host]
        self._urls = Urls(Guard(hosts), max_bytes=max_bytes, resolve=resolve)
        self._stores = Stores([host for host in url_hosts if "://" in host], max_bytes=max_bytes)
        self._blobs = blobs
        self._sleep = sleep

    def plain(self, refs: Sequence[str]) -> Callable[[str], bytes] | None:
        """What reads these where all are files, so that none of them has to be looked at again; else ``None``."""
        text = "".join(refs)
        is_plain = all(refs) and text.isprintable() and "://" not in text and BLOB not in text and BROKEN not in text
        return self._roots.read if is_plain else None

    def fetch(self, ref: str) -> bytes:
        """The bytes of an image file.

        Raises a class of :class:`~jobs.errors.ItemError`: not found, forbidden, too large, an invalid reference, or
        a transient one when a server did not answer in time, again and again.
        """
        if not ref or UNCARRIABLE.search(ref):
            raise InvalidItemError("the reference is empty or has control characters")
        if scheme := _SCHEME.match(ref):
            read = self._urls.read if scheme[1].lower() in ("http", "https") else self._stores.read
            until = time.monotonic() + self.timeout_s
            return retry(lambda: read(ref, until=until), until=until, sleep=self._sleep)
        if ref.startswith(BLOB):
            return self._fetch_blob(ref.removeprefix(BLOB))
        return self._roots.read(ref)

    def close(self) -> None:
        """Close the connections that are kept for more."""
        self._urls.close()

    def _fetch_blob(self, key: str) -> bytes:
        data = self._blobs(key) if self._blobs is not None else None
        if data is None:
            raise NotFoundError("the uploaded bytes are gone")
        if len(data) > self.max_bytes:
            raise TooLargeError(f"the upload has {len(data)} bytes; at most {self.max_bytes} are allowed")
        return data


def is_remote(ref: str) -> bool:
    """Whether a reference is asked of a server."""
    return _SCHEME.match(ref) is not None
