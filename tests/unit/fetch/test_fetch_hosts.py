"""Who may be asked for an image by URL: hosts, addresses, names that change, certificates."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from jobs.asking import ATTEMPTS
from jobs.errors import (
    FetchFailedError,
    FetchTimeoutError,
    ForbiddenError,
    InvalidItemError,
    ItemError,
    NotFoundError,
)
from jobs.guard import Guard, Target, is_public
from tests.support.image_server import IMAGE, SHORT_S, Make, Server, fails
from worker.fetch import Fetcher

TLS = Path(__file__).parents[2] / "data" / "tls"


# -- who may be asked -----------------------------------------------------------------------------


def test_without_hosts_no_url_is_fetched(server: Server) -> None:
    assert "LABELMILL_URL_HOSTS" in fails(Fetcher(), server.url("/image"), ForbiddenError)
    assert not server.asked


@pytest.mark.parametrize("ref", ["s3://bucket/key", "file:///etc/passwd", "ftp://host/x", "gopher://host/x"])
def test_other_schemes_are_forbidden(make: Make, ref: str) -> None:
    with pytest.raises(ForbiddenError, match="LABELMILL_URL_HOSTS"):
        make("*", file_roots=(Path("/"),)).fetch(ref)


@pytest.mark.parametrize(
    ("hosts", "url", "is_allowed"),
    [
        (["example.org"], "http://example.org/", True),
        (["Example.ORG"], "https://EXAMPLE.org./", True),
        (["example.org"], "http://example.org:8080/", False),
        (["example.org"], "https://example.org:80/", False),
        (["example.org"], "http://www.example.org/", False),
        (["example.org"], "http://example.org.evil.net/", False),
        (["example.org"], "http://evil.net/example.org", False),
        (["*.example.org"], "http://a.b.example.org/", True),
        (["*.example.org"], "http://example.org/", False),
        (["*.example.org"], "http://evilexample.org/", False),
        (["*"], "https://anything.net/", True),
        (["*"], "https://anything.net:8443/", False),
        (["example.org:8080"], "http://example.org:8080/", True),
        (["example.org:8080"], "http://example.org/", False),
        (["[2001:db8::1]"], "http://[2001:db8::1]/", True),
        (["bücher.example"], "http://bücher.example/", True),
        (["xn--bcher-kva.example"], "http://bücher.example/", True),
        ([], "http://example.org/", False),
    ],
)
def test_a_host_is_held_to_the_list(hosts: list[str], url: str, is_allowed: bool) -> None:
    check = partial(Guard(hosts).check_host, Target.of(url))
    if is_allowed:
        check()
    else:
        with pytest.raises(ForbiddenError):
            check()


@pytest.mark.parametrize(
    "address",
    [
        *("127.0.0.1", "127.8.8.8", "0.0.0.0", "10.1.2.3", "172.16.0.1", "192.168.1.1", "169.254.169.254"),
        *("100.64.0.1", "192.0.2.1", "198.18.0.1", "224.0.0.1", "240.0.0.1", "255.255.255.255"),
        *("::1", "::", "fe80::1", "fe80::1%eth0", "fc00::1", "fec0::1", "ff02::1", "2001:db8::1"),
        *("::ffff:127.0.0.1", "::ffff:10.0.0.1", "::127.0.0.1", "64:ff9b::10.0.0.1", "2002:7f00:1::"),
    ],
)
def test_an_address_that_is_not_public_is_not_asked(address: str) -> None:
    assert not is_public(address)
    with pytest.raises(ForbiddenError):
        Guard(["*"]).check_addresses(Target.of("http://name.net/"), ["93.184.215.14", address])


@pytest.mark.parametrize("address", ["93.184.215.14", "2606:2800:21f:cb07:6820:80da:af6b:8b2c", "64:ff9b::5db8:d70e"])
def test_a_public_address_is_asked(address: str) -> None:
    assert is_public(address)
    Guard(["*"]).check_addresses(Target.of("http://name.net/"), [address])


@pytest.mark.parametrize(
    "url",
    [
        "http://",
        "http:///path",
        "http://a:b/",
        "http://a:99999/",
        "http://user@example.org/",
        "http://[::1/",
        f"http://{'a' * 300}/",
    ],
)
def test_what_is_no_url_is_invalid(make: Make, url: str) -> None:
    with pytest.raises(InvalidItemError):
        make("*").fetch(url)


def test_a_name_for_this_machine_is_refused_before_it_is_asked(make: Make, server: Server) -> None:
    for url in ("http://localhost/", "http://127.0.0.1/", "http://2130706433/", "http://0x7f.1/", "http://[::1]/"):
        with pytest.raises((ForbiddenError, NotFoundError)):
            make("*").fetch(url)


def resolver(*answers: Sequence[str]) -> tuple[Callable[[str, int], Sequence[str]], list[str]]:
    """One that answers differently each time, and what it was asked."""
    asked: list[str] = []

    def resolve(host: str, _port: int) -> Sequence[str]:
        asked.append(host)
        return answers[min(len(asked), len(answers)) - 1]

    return resolve, asked


def test_the_connection_goes_to_the_very_address_that_was_checked(make: Make, server: Server) -> None:
    # no name service knows images.test: had anybody asked it again, this would fail
    resolve, asked = resolver(["127.0.0.1"])
    fetcher = make(f"images.test:{server.port}", resolve=resolve)
    assert fetcher.fetch(server.url("/image", "images.test")) == IMAGE
    assert asked == ["images.test"]
    assert server.hosts == [f"images.test:{server.port}"]


def test_the_next_address_is_tried_where_one_does_not_answer(make: Make, server: Server) -> None:
    resolve, _ = resolver(["127.99.0.1", "127.0.0.1"])
    fetcher = make(f"images.test:{server.port}", resolve=resolve)
    assert fetcher.fetch(server.url("/image", "images.test")) == IMAGE


def test_a_name_that_changes_to_a_private_address_is_refused(make: Make) -> None:
    resolve, _ = resolver(["10.0.0.1"])
    with pytest.raises(ForbiddenError, match="not public"):
        make("images.test", resolve=resolve).fetch("http://images.test/")


@pytest.mark.parametrize(("number", "kind"), [(socket.EAI_NONAME, NotFoundError), (socket.EAI_AGAIN, FetchFailedError)])
def test_a_name_that_is_not_known_is_not_found_and_one_not_known_now_is_tried_again(
    make: Make, number: int, kind: type[ItemError]
) -> None:
    asked = []

    def resolve(host: str, _port: int) -> Sequence[str]:
        asked.append(host)
        raise socket.gaierror(number, "no")

    with pytest.raises(kind):
        make("*", resolve=resolve).fetch("http://images.test/")
    assert len(asked) == (ATTEMPTS if kind.transient else 1)


# -- TLS ------------------------------------------------------------------------------------------


@pytest.fixture
def tls_server(server: Server) -> Server:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(TLS / "certificate.pem", TLS / "key.pem")
    server.socket = context.wrap_socket(server.socket, server_side=True)
    return server


def by_tls(make: Make, server: Server, path: str, host: str = "images.test", **options: Any) -> bytes:
    fetcher = make(f"{host}:{server.port}", resolve=lambda *_: ["127.0.0.1"], **options)
    return fetcher.fetch(f"https://{host}:{server.port}{path}")


def test_https_proves_the_name_and_not_the_address(
    make: Make, tls_server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(TLS / "certificate.pem"))
    assert by_tls(make, tls_server, "/image") == IMAGE
    with pytest.raises(ForbiddenError, match="certificate"):
        by_tls(make, tls_server, "/image", host="other.test")


def test_a_certificate_that_nobody_trusts_is_forbidden(make: Make, tls_server: Server) -> None:
    with pytest.raises(ForbiddenError, match="certificate"):
        by_tls(make, tls_server, "/image")


def test_a_slow_https_server_is_a_timeout_too(make: Make, tls_server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(TLS / "certificate.pem"))
    with pytest.raises(FetchTimeoutError):
        by_tls(make, tls_server, "/drip", timeout_s=SHORT_S)


def test_https_to_a_server_without_it_is_a_failed_fetch(make: Make, server: Server) -> None:
    with pytest.raises(FetchFailedError):
        by_tls(make, server, "/image")
