"""What a worker can read itself, said in such a way that a producer can tell whether it is what the producer reads.

A path alone does not tell: another machine, or a container, may have other files under the same name. So a worker
says of each of its roots which folder it is on disk, and a producer compares that with its own.
"""

from __future__ import annotations

import ipaddress
import os
import re
import socket
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from jobs.errors import ItemError
from jobs.guard import Guard, Target
from jobs.items import UNCARRIABLE

__all__ = ["Reach", "beyond", "common_reach"]

#: What is the same for all URLs of a host: millions of them are asked for.
_ORIGIN = re.compile(r"https?://[^/?#]*", re.IGNORECASE)


@dataclass(frozen=True)
class Reach:
    """Roots as (path, device, inode, time of the last change in ns), on ``host``, and hosts to fetch from."""

    host: str = ""
    roots: tuple[tuple[str, int, int, int], ...] = ()
    url_hosts: tuple[str, ...] = ()

    @classmethod
    def of(cls, file_roots: Sequence[Path], url_hosts: Sequence[str]) -> Reach:
        """That of this process; left out is a root that is not there, or whose name no reference can have."""
        signs = (_sign(str(root)) for root in file_roots if not UNCARRIABLE.search(str(root)))
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
    """Says of a reference whether every one of these workers can read it; of none of them, never.

    The rules are those of the workers (``jobs/guard.py``, ``worker/stores.py``, ``worker/roots.py``), but for what
    only they can know: the addresses of a host's name, and files that are links in a folder (see :func:`beyond`).
    """
    kinds = {(frozenset(reach.folders()), reach.url_hosts) for reach in reaches}
    readers = [(_files_of(folders), _urls_of(hosts), _objects_of(hosts)) for folders, hosts in kinds]

    def readable(ref: str) -> bool:
        kind = 0 if "://" not in ref else 1 if ref[:8].lower().startswith(("http://", "https://")) else 2
        return bool(readers) and all(reader[kind](ref) for reader in readers)

    return readable


def beyond(link: str) -> str:
    """The file behind a link that leads out of its folder; any other path as it is.

    Workers ask where a file really is, and read none that lies outside of their roots.
    """
    real = os.path.realpath(link)
    return link if os.path.dirname(real) == os.path.realpath(os.path.dirname(link)) else real


def _files_of(folders: frozenset[str]) -> Callable[[str], bool]:
    named = tuple(os.path.join(folder, "") for folder in folders)
    real = tuple(os.path.join(os.path.realpath(folder), "") for folder in folders)

    @lru_cache(maxsize=4096)
    def is_inside(folder: str) -> bool:
        return os.path.join(os.path.realpath(folder), "").startswith(real)

    def readable(ref: str) -> bool:
        if ref in folders:
            return True
        return ref.startswith(named) and "/../" not in ref and is_inside(os.path.dirname(ref))

    return readable


def _objects_of(hosts: Sequence[str]) -> Callable[[str], bool]:
    prefixes = tuple(f"{host.rstrip('/')}/" for host in hosts if "://" in host)

    def readable(ref: str) -> bool:
        return ref.startswith(prefixes) and "::" not in ref and not {".", ".."} & set(ref.split("/"))

    return readable


def _urls_of(hosts: Sequence[str]) -> Callable[[str], bool]:
    guard = Guard([host for host in hosts if "://" not in host])

    @lru_cache(maxsize=4096)
    def is_allowed(origin: str) -> bool:
        try:
            target = Target.of(origin)
            guard.check_host(target)
            guard.check_addresses(target, [target.host] if _is_address(target.host) else [])
        except ItemError:
            return False
        return True

    def readable(ref: str) -> bool:
        origin = _ORIGIN.match(ref)
        return origin is not None and is_allowed(origin[0])

    return readable


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True
