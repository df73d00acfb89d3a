"""Which hosts and addresses a worker may fetch from. Whoever can send a job must not reach what only the worker can.

A producer asks the same rules which URLs it can leave to the workers, see :mod:`jobs.reach`.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass
from urllib.parse import quote, urlsplit

from jobs.errors import ForbiddenError, InvalidItemError, UsageError

__all__ = ["DEFAULT_PORTS", "SENT_AS_IS", "Guard", "Target", "is_public"]

HOST_FORBIDDEN = "this host is not one that workers may fetch from (LABELMILL_URL_HOSTS)"
ADDRESS_FORBIDDEN = "this host has an address that is not public"
#: Ports that need not be named.
DEFAULT_PORTS = {"http": 80, "https": 443}
#: Characters of a path or query that are sent as they are; all others are percent-encoded.
SENT_AS_IS = "%/:=&?~+!$,;'@()*[]"
#: IPv6 networks whose last 32 bits are an IPv4 address: mapped, compatible, NAT64.
_CARRIERS = tuple(ipaddress.IPv6Network(n) for n in ("::ffff:0:0/96", "::/96", "64:ff9b::/96"))

_Address = ipaddress.IPv4Address | ipaddress.IPv6Address


@dataclass(frozen=True)
class Target:
    """A URL in the parts that a request needs. ``path`` is percent-encoded, with the query."""

    scheme: str
    host: str
    port: int
    path: str

    @classmethod
    def of(cls, url: str) -> Target:
        """Take a URL apart; raises :class:`~jobs.errors.InvalidItemError` where it is none that can be asked for."""
        try:
            parts = urlsplit(url)
            host = _ascii((parts.hostname or "").rstrip("."))
            port = parts.port
        except ValueError as exc:  # UnicodeError is one
            raise InvalidItemError("this is not a valid URL") from exc
        if parts.scheme not in DEFAULT_PORTS or not host:
            raise InvalidItemError("this is not a valid http or https URL")
        if "@" in parts.netloc:
            raise InvalidItemError("a URL must not carry a user name or a password")
        path = quote(parts.path or "/", safe=SENT_AS_IS)
        if parts.query:
            path += "?" + quote(parts.query, safe=SENT_AS_IS)
        return cls(parts.scheme, host, DEFAULT_PORTS[parts.scheme] if port is None else port, path)


class Guard:
    """Holds a target to the hosts that the operator allows.

    ``hosts`` are names (``example.org``), all names below one (``*.example.org``) or ``*`` for any name; these allow
    the usual ports and public addresses only. ``host:port`` allows just that port, and any address, so that a server
    of one's own can be named. None at all allows no URL.
    """

    def __init__(self, hosts: Sequence[str]) -> None:
        try:
            entries = {_ascii(host.strip()) for host in hosts}
        except UnicodeError as exc:
            raise UsageError(f"LABELMILL_URL_HOSTS: {','.join(hosts)!a} has what cannot be a host") from exc
        self._exact = {entry for entry in entries if not entry.startswith("*")}
        self._below = tuple(entry[1:] for entry in entries if entry.startswith("*."))
        self._any = "*" in entries

    def check_host(self, target: Target) -> None:
        """Raises :class:`~jobs.errors.ForbiddenError` unless the operator allows host and port."""
        if self._is_named(target):
            return
        if target.port == DEFAULT_PORTS[target.scheme] and (
            self._any or _bare(target.host) in self._exact or target.host.endswith(self._below)
        ):
            return
        raise ForbiddenError(HOST_FORBIDDEN)

    def check_addresses(self, target: Target, addresses: Sequence[str]) -> None:
        """Raises :class:`~jobs.errors.ForbiddenError` where one of the host's addresses is private.

        All of them count: a name that has public and private ones is one that someone plays with.
        """
        if not self._is_named(target) and not all(map(is_public, addresses)):
            raise ForbiddenError(ADDRESS_FORBIDDEN)

    def _is_named(self, target: Target) -> bool:
        return f"{_bare(target.host)}:{target.port}" in self._exact


def is_public(address: str) -> bool:
    """Whether an address can be reached from anywhere: not private, loopback, link-local, multicast or reserved."""
    ip: _Address = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(ip, ipaddress.IPv6Address):
        inner = ip.sixtofour or (ip.teredo[1] if ip.teredo else None)
        if any(ip in network for network in _CARRIERS):
            inner = ipaddress.IPv4Address(int(ip) & 0xFFFFFFFF)
        if inner is not None:
            return is_public(str(inner))
        if ip.is_site_local:
            return False
    return ip.is_global and not ip.is_multicast and not ip.is_reserved


def _ascii(host: str) -> str:
    """A host's name as it is asked for; raises :class:`UnicodeError` where it is none."""
    return host.encode("idna").decode("ascii").lower()


def _bare(host: str) -> str:
    return f"[{host}]" if ":" in host else host
