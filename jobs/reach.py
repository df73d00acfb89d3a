"""What a worker can read itself, said in such a way that a producer can tell whether it is what the producer reads.

A path alone does not tell: another machine, or a container, may have other files under the same name. So a worker
says of each of its roots which folder it is on disk, and a producer compares that with its own.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

__all__ = ["Reach", "common_reach"]


@dataclass(frozen=True)
class Reach:
    """Roots as (path, device, inode, time of the last change in ns), on ``host``, and hosts to fetch from."""

    host: str = ""
    roots: tuple[tuple[str, int, int, int], ...] = ()
    url_hosts: tuple[str, ...] = ()

    @classmethod
    def of(cls, file_roots: Sequence[Path], url_hosts: Sequence[str]) -> Reach:
        """That of this process; a root that is not there is left out."""
        signs = (_sign(str(root)) for root in file_roots)
        return cls(socket.gethostname(), tuple(sign for sign in signs if sign), tuple(url_hosts))

    @classmethod
    def from_json(cls, raw: Any) -> Reach:
        """The opposite of :meth:`as_json`."""
        roots = tuple((str(path), int(dev), int(inode), int(changed)) for path, dev, inode, changed in raw["roots"])
        return cls(raw["host"], roots, tuple(raw["url_hosts"]))

    def as_json(self) -> dict[str, Any]:
        """A form that JSON can carry."""
        return {"host": self.host, "roots": self.roots, "url_hosts": self.url_hosts}

    def folders(self) -> set[str]:
        """Its roots that are the very same folders here."""
        return {root[0] for root in self.roots if self._is_here(*root)}

    def _is_here(self, path: str, dev: int, inode: int, changed_ns: int) -> bool:
        mine = _sign(path)
        if mine is None or mine[2] != inode:
            return False
        if self.host == socket.gethostname():
            return mine[1] == dev
        return mine[3] == changed_ns  # a share has another device number on each machine


def _sign(path: str) -> tuple[str, int, int, int] | None:
    try:
        stat = os.stat(path)
    except OSError:
        return None
    return path, stat.st_dev, stat.st_ino, stat.st_mtime_ns


def common_reach(reaches: Iterable[Reach]) -> Callable[[str], bool]:
    """Says of a reference whether every one of these workers can read it; of none of them, never."""
    known = list(reaches)
    folders = set.intersection(*(reach.folders() for reach in known)) if known else set()
    hosts = set.intersection(*(set(reach.url_hosts) for reach in known)) if known else set()
    stores = tuple(f"{host.rstrip('/')}/" for host in hosts if "://" in host)
    inside = tuple(os.path.join(folder, "") for folder in folders)

    def readable(ref: str) -> bool:
        if ref.startswith(("http://", "https://")):
            return _is_named(ref, hosts)
        return ref in folders or (ref.startswith(inside + stores) and "/../" not in ref)

    return readable


def _is_named(url: str, hosts: set[str]) -> bool:
    """True where a worker with these hosts fetches the URL: names on the usual port, else ``host:port``."""
    try:
        parts = urlsplit(url)
        host, port = (parts.hostname or "").rstrip("."), parts.port
    except ValueError:
        return False
    usual = {"http": 80, "https": 443}[parts.scheme]
    if f"{host}:{port or usual}" in hosts:
        return True
    below = any(host.endswith(name[1:]) for name in hosts if name.startswith("*."))
    return port in (None, usual) and (host in hosts or "*" in hosts or below)
