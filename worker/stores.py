"""Images in object stores, through fsspec: only under the buckets and prefixes that the operator names.

The scheme's own file system is asked for the path; fsspec's chains (``s3://a::file:///b``), which could lead anywhere,
are refused. Credentials and endpoint come from the worker's environment, never from a message.
"""

from __future__ import annotations

import importlib
import time
from collections.abc import Sequence
from functools import partial
from typing import Any, cast

from jobs.errors import (
    FetchFailedError,
    FetchTimeoutError,
    ForbiddenError,
    ItemError,
    NotFoundError,
    TooLargeError,
    UsageError,
)

__all__ = ["Stores"]

OUTSIDE = "this object is not one that workers may fetch (LABELMILL_URL_HOSTS)"
#: Schemes that have ways of their own here, with rules of their own.
_NOT_STORES = frozenset({"http", "https", "file", "local"})


class Stores:
    """Reads objects under ``prefixes``: ``scheme://bucket`` or ``scheme://bucket/prefix``; none allows nothing."""

    def __init__(self, prefixes: Sequence[str], *, max_bytes: int) -> None:
        for prefix in prefixes:
            if prefix.partition("://")[0].lower() in _NOT_STORES:
                raise UsageError(f"LABELMILL_URL_HOSTS: {prefix} must be a host alone, or a bucket such as s3://photos")
        self.max_bytes = max_bytes
        self._prefixes = tuple(prefix.rstrip("/") + "/" for prefix in prefixes)
        self._systems: dict[str, Any] = {}

    def read(self, url: str, *, until: float) -> bytes:
        """The bytes of an object, by ``until`` (of ``time.monotonic``) where its file system can be held to it.

        Raises :class:`~jobs.errors.ForbiddenError`, :class:`~jobs.errors.NotFoundError`,
        :class:`~jobs.errors.TooLargeError`, and the transient :class:`~jobs.errors.FetchTimeoutError` and
        :class:`~jobs.errors.FetchFailedError`.
        """
        steps = url.split("/")
        if not url.startswith(self._prefixes) or "::" in url or ".." in steps or "." in steps:
            raise ForbiddenError(OUTSIDE)
        scheme, _, path = url.partition("://")
        try:
            return self._read(self._system(scheme), path, until)
        except ItemError:
            raise
        except Exception as exc:  # each store's client has errors of its own
            raise _item_error(exc) from exc

    def _read(self, system: Any, path: str, until: float) -> bytes:
        ask = partial(_ask, system, until=until)
        size = int(ask("info", path)["size"] or 0)
        if size > self.max_bytes:
            raise TooLargeError(f"the object has {size} bytes; at most {self.max_bytes} are allowed")
        data = cast("bytes", ask("cat_file", path)) if size else b""
        if len(data) > self.max_bytes:
            raise TooLargeError(f"the object has {len(data)} bytes; at most {self.max_bytes} are allowed")
        return data

    def _system(self, scheme: str) -> Any:
        if scheme not in self._systems:
            try:
                fsspec = importlib.import_module("fsspec")
                # listings would be kept, and an object that is new would not be seen
                self._systems[scheme] = fsspec.filesystem(scheme, use_listings_cache=False)
            except (ImportError, ValueError) as exc:
                raise ForbiddenError(f"workers have no package for {scheme}:// (for s3: labelmill[s3])") from exc
        return self._systems[scheme]


def _ask(system: Any, method: str, path: str, *, until: float) -> Any:
    """The answer of a file system; one that is asynchronous inside is waited for no longer than there is time."""
    left = until - time.monotonic()
    if left <= 0:
        raise TimeoutError
    if not system.async_impl:
        return getattr(system, method)(path)
    asyn = importlib.import_module("fsspec.asyn")
    return asyn.sync(system.loop, getattr(system, f"_{method}"), path, timeout=left)


def _item_error(exc: Exception) -> ItemError:
    if isinstance(exc, FileNotFoundError):
        return NotFoundError()
    if isinstance(exc, PermissionError):
        return ForbiddenError("the object store does not let the worker read this object")
    if isinstance(exc, TimeoutError):
        return FetchTimeoutError()
    return FetchFailedError(f"the object store could not be asked: {type(exc).__name__}")
