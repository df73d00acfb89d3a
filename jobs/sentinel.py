"""A Redis that Sentinels watch: ``sentinel://:password@host:26379;sentinel://host2:26379/0``, in Celery's form.

User, password and database of the first part are those of Redis; ``LABELMILL_SENTINEL_MASTER`` names the group.
"""

from __future__ import annotations

from typing import Any
from urllib.parse import unquote, urlsplit

import redis
from redis.sentinel import Sentinel

__all__ = ["SCHEME", "master_of", "parse"]

SCHEME = "sentinel://"
_PORT = 26379


def parse(url: str) -> tuple[list[tuple[str, int]], dict[str, Any]]:
    """Addresses of the Sentinels, and ``db``, ``username`` and ``password`` of their Redis. Raises ValueError."""
    parts = [urlsplit(part) for part in url.split(";") if part]
    if not parts or any(part.scheme != "sentinel" or not part.hostname for part in parts):
        raise ValueError("must be of the form sentinel://host:26379;sentinel://host2:26379/0")
    first, database = parts[0], next((part.path.strip("/") for part in parts if part.path.strip("/")), "0")
    return (
        [(str(part.hostname), part.port or _PORT) for part in parts],
        {
            "db": int(database),
            "username": unquote(first.username) if first.username else None,
            "password": unquote(first.password) if first.password else None,
        },
    )


def master_of(url: str, name: str, **options: Any) -> redis.Redis:
    """A client of the master of today, whichever that is at each connection. Raises ValueError for a bad URL."""
    addresses, access = parse(url)
    # a Sentinel that is gone must not hold up the question to the next one
    asking = {"socket_timeout": 2.0, "socket_connect_timeout": 2.0}
    sentinel = Sentinel(addresses, sentinel_kwargs=asking)  # type: ignore[no-untyped-call]
    client: redis.Redis = sentinel.master_for(name, **access, **options)  # type: ignore[no-untyped-call]
    return client
