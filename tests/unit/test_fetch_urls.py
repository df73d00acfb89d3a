"""Images by URL: from a real server on this machine, under the rules of who may be asked."""

from __future__ import annotations

import socket
import ssl
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from jobs.asking import ATTEMPTS, FIRST_WAIT_S
from jobs.errors import (
    FetchFailedError,
    FetchTimeoutError,
    ForbiddenError,
    InvalidItemError,
    ItemError,
    NotFoundError,
    TooLargeError,
)
from worker.fetch import Fetcher
from worker.guard import Guard, Target, is_public

IMAGE = b"the bytes of an image " * 50
TLS = Path(__file__).parents[1] / "data" / "tls"
Make = Callable[..., Fetcher]
#: Seconds after which a fetch that must run into its limit does.
SHORT_S = 0.3


class Server(ThreadingHTTPServer):
    """Counts what it is asked and on how many connections."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.asked: Counter[str] = Counter()
        self.hosts: list[str] = []
        self.connections = 0
        self.stop = threading.Event()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that had enough of an answer hung up, as it should; what it made of it is what is tested."""

    @property
    def port(self) -> int:
        return int(self.server_address[1])

    def url(self, path: str, host: str = "127.0.0.1") -> str:
        return f"http://{host}:{self.port}{path}"


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Server

    def setup(self) -> None:
        super().setup()
        self.server.connections += 1

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing."""

    def do_GET(self) -> None:
        name, _, rest = self.path.lstrip("/").partition("/")
        self.server.asked[self.path] += 1
        self.server.hosts.append(self.headers["Host"])
        {
            "image": self.answer,
            "status": lambda: self.answer(int(rest), b"sorry"),
            "flaky": lambda: self.answer(503 if self.server.asked[self.path] < 3 else 200),
            "to": lambda: self.answer(302, b"", Location=rest),
            "nowhere": lambda: self.answer(302, b""),
            "hops": lambda: self.answer(302, b"", Location=f"/hops/{int(rest) - 1}") if rest != "0" else self.answer(),
            "closing": lambda: self.answer(Connection="close"),
            "silently-closing": self.close_after_answer,
            "claims": lambda: self.answer(length=int(rest)),
            "endless": self.never_end,
            "drip": self.drip,
            "drip-head": lambda: self.drip_bytes(b"HTTP/1.1 200 OK\r\n"),
            "silent": self.server.stop.wait,
            "nonsense": lambda: self.wfile.write(b"no HTTP at all\r\n\r\n"),
        }[name]()

    def answer(self, status: int = 200, body: bytes = IMAGE, length: int | None = None, **headers: str) -> None:
        self.send_response(status)
        for key, value in headers.items():
            self.send_header(key, value)
        self.send_header("Content-Length", str(len(body) if length is None else length))
        self.end_headers()
        self.wfile.write(body)
        self.close_connection = headers.get("Connection") == "close" or length is not None

    def close_after_answer(self) -> None:
        self.answer()
        self.close_connection = True

    def never_end(self) -> None:
        self.send_response(200)
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        piece = bytes(4096)
        try:
            while not self.server.stop.is_set():
                self.wfile.write(b"%x\r\n%s\r\n" % (len(piece), piece))
        except OSError:
            self.close_connection = True  # the other side had enough, as it should

    def drip(self) -> None:
        self.send_response(200)
        self.send_header("Connection", "close")
        self.end_headers()
        self.drip_bytes(b"x")

    def drip_bytes(self, text: bytes) -> None:
        """One byte now and then, each well within any time limit of its own."""
        self.close_connection = True
        try:
            while not self.server.stop.wait(SHORT_S / 10):
                self.wfile.write(text[:1])
                text = text[1:] or b"x"
        except OSError:
            return


@pytest.fixture
def server() -> Iterator[Server]:
    server = Server()
    thread = threading.Thread(target=partial(server.serve_forever, poll_interval=0.01))
    thread.start()
    yield server
    server.stop.set()
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture
def make() -> Iterator[Make]:
    """Makes fetchers that do not wait between attempts, and closes them."""
    with ExitStack() as made:

        def make(*hosts: str, **options: Any) -> Fetcher:
            fetcher = Fetcher(url_hosts=hosts, **{"sleep": lambda _: None, **options})
            made.callback(fetcher.close)
            return fetcher

        yield make


@pytest.fixture
def fetcher(server: Server, make: Make) -> Fetcher:
    """One that may ask this server."""
    return make(f"127.0.0.1:{server.port}", max_bytes=len(IMAGE))


def fails(fetcher: Fetcher, url: str, kind: type[ItemError]) -> str:
    with pytest.raises(kind) as raised:
        fetcher.fetch(url)
    assert type(raised.value) is kind
    assert raised.value.message.isprintable()
    assert "127.0.0.1" not in raised.value.message
    return raised.value.message


# -- answers --------------------------------------------------------------------------------------


def test_an_image_is_fetched_by_its_url(server: Server, fetcher: Fetcher) -> None:
    assert fetcher.fetch(server.url("/image/cat.jpg?size=large#top")) == IMAGE
    assert list(server.asked) == ["/image/cat.jpg?size=large"]


def test_a_url_is_sent_percent_encoded_and_once_only(server: Server, fetcher: Fetcher) -> None:
    assert fetcher.fetch(server.url("/image/grüße 1%20.jpg?q=ä b")) == IMAGE
    assert list(server.asked) == ["/image/gr%C3%BC%C3%9Fe%201%20.jpg?q=%C3%A4%20b"]


def test_one_connection_serves_many_images(server: Server, fetcher: Fetcher) -> None:
    for number in range(5):
        fetcher.fetch(server.url(f"/image/{number}"))
    assert server.connections == 1


def test_a_server_that_closes_its_connections_is_asked_on_new_ones(server: Server, fetcher: Fetcher) -> None:
    for _ in range(3):
        assert fetcher.fetch(server.url("/closing")) == IMAGE
    assert server.connections == 3


def test_a_connection_that_was_closed_while_idle_costs_no_image(server: Server, fetcher: Fetcher) -> None:
    for _ in range(3):
        assert fetcher.fetch(server.url("/silently-closing")) == IMAGE
    assert server.asked["/silently-closing"] == 3


def test_threads_share_a_fetcher(server: Server, fetcher: Fetcher) -> None:
    got: list[bytes] = []
    threads = [threading.Thread(target=lambda: got.append(fetcher.fetch(server.url("/image")))) for _ in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert got == [IMAGE] * 12


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        *((404, NotFoundError), (410, NotFoundError), (401, ForbiddenError), (403, ForbiddenError)),
        *((400, InvalidItemError), (204, InvalidItemError), (304, InvalidItemError)),
        *((429, FetchFailedError), (500, FetchFailedError), (503, FetchFailedError)),
    ],
)
def test_each_status_is_an_error_of_its_kind(
    server: Server, fetcher: Fetcher, status: int, kind: type[ItemError]
) -> None:
    assert str(status) in fails(fetcher, server.url(f"/status/{status}"), kind)
    assert server.asked[f"/status/{status}"] == (ATTEMPTS if kind.transient else 1)


def test_what_is_no_http_is_a_failed_fetch(server: Server, fetcher: Fetcher) -> None:
    fails(fetcher, server.url("/nonsense"), FetchFailedError)


def test_a_server_that_is_not_there_is_a_failed_fetch(make: Make, server: Server) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
    fetcher = make(f"127.0.0.1:{port}")
    assert "refused" in fails(fetcher, f"http://127.0.0.1:{port}/", FetchFailedError)


# -- size and time --------------------------------------------------------------------------------


def test_an_image_of_exactly_the_limit_is_taken(server: Server, fetcher: Fetcher) -> None:
    assert len(fetcher.fetch(server.url("/image"))) == fetcher.max_bytes


def test_a_body_that_says_it_is_too_large_is_not_read(server: Server, fetcher: Fetcher) -> None:
    assert "1000000000000 bytes" in fails(fetcher, server.url("/claims/1000000000000"), TooLargeError)


def test_a_body_without_an_end_is_left_at_the_limit(server: Server, fetcher: Fetcher) -> None:
    assert "more than" in fails(fetcher, server.url("/endless"), TooLargeError)


def test_a_body_that_breaks_off_is_a_failed_fetch(make: Make, server: Server) -> None:
    fetcher = make(f"127.0.0.1:{server.port}")
    assert "closed" in fails(fetcher, server.url(f"/claims/{len(IMAGE) + 1}"), FetchFailedError)


@pytest.mark.parametrize("path", ["/silent", "/drip", "/drip-head"])
def test_a_slow_server_is_a_timeout_however_slowly_it_sends(make: Make, server: Server, path: str) -> None:
    fetcher = make(f"127.0.0.1:{server.port}", timeout_s=SHORT_S)
    fails(fetcher, server.url(path), FetchTimeoutError)
    assert server.asked[path] <= 1


def test_a_fault_that_passes_costs_waits_that_grow_and_vary(make: Make, server: Server) -> None:
    waits: list[float] = []
    fetcher = make(f"127.0.0.1:{server.port}", sleep=waits.append)
    assert fetcher.fetch(server.url("/flaky")) == IMAGE
    assert server.asked["/flaky"] == 3
    for number, wait in enumerate(waits):
        assert FIRST_WAIT_S * 2**number / 2 <= wait <= FIRST_WAIT_S * 2**number
    assert len(waits) == 2


def test_there_is_no_second_attempt_that_could_not_be_waited_for(make: Make, server: Server) -> None:
    fetcher = make(f"127.0.0.1:{server.port}", timeout_s=FIRST_WAIT_S / 2, sleep=pytest.fail)
    fails(fetcher, server.url("/status/503"), FetchFailedError)


# -- redirects ------------------------------------------------------------------------------------


def test_redirects_are_followed_up_to_a_number(server: Server, fetcher: Fetcher) -> None:
    assert fetcher.fetch(server.url("/hops/5")) == IMAGE
    assert "5 times" in fails(fetcher, server.url("/hops/6"), InvalidItemError)


def test_a_redirect_to_nowhere_is_invalid(server: Server, fetcher: Fetcher) -> None:
    fails(fetcher, server.url("/nowhere"), InvalidItemError)


@pytest.mark.parametrize(
    ("location", "kind"),
    [
        ("http://127.0.0.1:1/metadata", ForbiddenError),
        ("http://localhost/", ForbiddenError),
        ("http://169.254.169.254/latest/", ForbiddenError),
        ("//169.254.169.254/latest/", ForbiddenError),
        ("file:///etc/passwd", InvalidItemError),
        ("ftp://127.0.0.1/x", InvalidItemError),
        ("http://user:word@127.0.0.1/", InvalidItemError),
        ("http://[bad/", InvalidItemError),
    ],
)
def test_each_hop_of_a_redirect_is_held_to_the_rules(
    server: Server, fetcher: Fetcher, location: str, kind: type[ItemError]
) -> None:
    fails(fetcher, server.url(f"/to/{location}"), kind)


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
