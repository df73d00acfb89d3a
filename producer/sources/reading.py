"""From a path or a URL to the bytes of an image, where the producer reads it itself.

Faults have the codes that they have where a worker reads it.
"""

from __future__ import annotations

import errno
import os
import socket
import ssl
import stat
import urllib.error
import urllib.request
from http.client import HTTPException, InvalidURL
from urllib.parse import quote, urlsplit, urlunsplit

from jobs.asking import retry, status_error
from jobs.errors import (
    FetchFailedError,
    FetchTimeoutError,
    ForbiddenError,
    InvalidItemError,
    ItemError,
    NotFoundError,
    TooLargeError,
)
from jobs.guard import SENT_AS_IS
from producer.sources.openers import file_system, is_url, store_errors

__all__ = ["read_bytes"]

#: Seconds that one read over the network may take.
TIMEOUT_S = 30.0


def read_bytes(ref: str, *, max_bytes: int) -> bytes:
    """The bytes of a path or a URL; a URL is asked for again where the fault may pass.

    Raises an :class:`~jobs.errors.ItemError` that says why not.
    """
    limit = max_bytes + 1
    data = retry(lambda: _read_url(ref, limit)) if is_url(ref) else _read_path(ref, limit)
    if len(data) > max_bytes:
        raise TooLargeError()
    return data


def _read_path(path: str, limit: int) -> bytes:
    try:
        about = os.stat(path)
        if not stat.S_ISREG(about.st_mode):
            raise InvalidItemError()
        if about.st_size >= limit:
            raise TooLargeError()
        with open(path, "rb") as file:
            return file.read(limit)
    except OSError as exc:
        raise _of_the_system(exc) from exc


def _read_url(url: str, limit: int) -> bytes:
    return _read_http(url, limit) if url.lower().startswith(("http://", "https://")) else _read_object(url, limit)


def _read_http(url: str, limit: int) -> bytes:
    try:
        with urllib.request.urlopen(_sendable(url), timeout=TIMEOUT_S) as answer:
            data: bytes = answer.read(limit)
            if answer.length and len(data) < limit:
                raise FetchFailedError()  # it was cut off
            return data
    except urllib.error.HTTPError as exc:
        raise status_error(exc.code)() from exc
    except urllib.error.URLError as exc:
        raise _of_the_system(exc.reason if isinstance(exc.reason, OSError) else exc) from exc
    except (InvalidURL, ValueError) as exc:
        raise InvalidItemError() from exc
    except HTTPException as exc:
        raise FetchFailedError() from exc
    except OSError as exc:
        raise _of_the_system(exc) from exc


def _read_object(url: str, limit: int) -> bytes:
    fs, path = file_system(url)
    try:
        return bytes(fs.cat_file(path, start=0, end=limit))
    except ValueError as exc:
        raise InvalidItemError() from exc
    except OSError as exc:
        raise _of_the_system(exc) from exc
    except store_errors() as exc:
        raise FetchFailedError() from exc


def _sendable(url: str) -> str:
    """The URL as it goes over the wire; raises :class:`ValueError` where it is none."""
    parts = urlsplit(url)
    if not parts.hostname:
        raise ValueError("no host")
    host, colon, port = parts.netloc.rpartition(":") if parts.port is not None else (parts.netloc, "", "")
    netloc = host.encode("idna").decode("ascii") + colon + port
    path, query = quote(parts.path, safe=SENT_AS_IS), quote(parts.query, safe=SENT_AS_IS)
    return urlunsplit((parts.scheme, netloc, path, query, ""))


def _of_the_system(exc: OSError) -> ItemError:
    kinds: tuple[tuple[type[OSError], type[ItemError]], ...] = (
        (FileNotFoundError, NotFoundError),
        (NotADirectoryError, NotFoundError),
        (PermissionError, ForbiddenError),
        (TimeoutError, FetchTimeoutError),
        (ssl.SSLCertVerificationError, ForbiddenError),
    )
    if isinstance(exc, socket.gaierror):
        return FetchFailedError() if exc.errno == socket.EAI_AGAIN else NotFoundError()
    if exc.errno in (errno.ENAMETOOLONG, errno.ELOOP):
        return InvalidItemError()
    return next((error() for kind, error in kinds if isinstance(exc, kind)), FetchFailedError())
