"""Who may ask the gateway, how much and how slowly; and what its answers give away."""

from __future__ import annotations

import json
import resource
import socket
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

import pytest
import requests

from tests.support.gateway import GatewayProcess, gateway
from tests.support.servers import RedisServer, eventually, worker_process

PICTURE = {"image": ("cat.jpg", b"any bytes", "image/jpeg")}


@pytest.fixture(scope="module")
def web() -> Iterator[GatewayProcess]:
    """A gateway with its embedded pair."""
    with gateway() as process:
        yield process


@pytest.fixture(scope="module")
def locked() -> Iterator[GatewayProcess]:
    """A gateway that asks for tokens and counts requests."""
    env = {"LABELMILL_API_TOKENS": "first-token, second-token", "LABELMILL_WEB_REQUESTS_PER_MINUTE": "30"}
    with gateway("--access-log", env=env) as process:
        yield process


def bearer(token: str) -> dict[str, str]:
    """The header of a token."""
    return {"Authorization": f"Bearer {token}"}


@pytest.mark.parametrize(
    "headers",
    [{}, bearer("wrong-token"), bearer(""), bearer("first-token "[:-2]), {"Authorization": "Basic first-token"}],
    ids=["none", "wrong", "empty", "cut off", "another scheme"],
)
def test_without_a_valid_token_nothing_is_done(locked: GatewayProcess, headers: dict[str, str]) -> None:
    for method, path in (("GET", "/v1/models"), ("POST", "/predict"), ("POST", "/v1/jobs"), ("GET", "/v2/models/noop")):
        answer = locked.request(method, path, headers=headers)
        assert answer.status_code == 401
        assert answer.headers["WWW-Authenticate"] == 'Bearer realm="labelmill"'
        assert answer.json()["code"] == "unauthorized"


def test_any_of_the_tokens_opens_and_the_page_and_health_are_open(locked: GatewayProcess) -> None:
    for token in ("first-token", "second-token"):
        assert locked.post("/predict", files=PICTURE, headers=bearer(token)).status_code == 200
    for path in ("/", "/static/app.js", "/openapi.json", "/v2/health/live", "/v2/health/ready"):
        assert locked.get(path).status_code == 200


def test_too_many_requests_are_told_when_to_come_again(locked: GatewayProcess) -> None:
    headers = bearer("second-token")
    answers = iter(lambda: locked.get("/v1/models", headers=headers), None)
    refused = next(answer for answer in answers if answer.status_code != 200)
    assert (refused.status_code, refused.json()["code"]) == (429, "too_many_requests")
    assert 1 <= int(refused.headers["Retry-After"]) <= 60
    assert locked.get("/v2/health/live").status_code == 200


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (b"first-token\r\n\r\n", 400),
        (b"GET /v1/models HTTP/1.1\r\nHost: localhost\r\nAuthorization Bearer first-token\r\n\r\n", 400),
        (b"GET /v1/models HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer first-token\0\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: localhost\r\nX-Long: first-token" + b"x" * 20_000 + b"\r\n\r\n", 431),
        (b"GET /?first-token" + b"x" * 5000 + b" HTTP/1.1\r\nHost: localhost\r\n\r\n", 414),
    ],
    ids=["a line", "no colon", "a zero byte", "large headers", "a long line"],
)
def test_what_is_no_request_is_a_problem_too(locked: GatewayProcess, request_: bytes, status: int) -> None:
    with socket.create_connection(("127.0.0.1", locked.port), timeout=60) as client:
        client.sendall(request_)
        head, _, body = client.makefile("rb").read().partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 %d " % status)
    assert b"Content-Type: application/problem+json" in head
    assert json.loads(body)["status"] == status
    assert b"first-token" not in body


def test_no_token_is_ever_logged(locked: GatewayProcess) -> None:
    for token in ("first-token", "a-wrong-token"):
        for path in ("/v1/models", "/nowhere", "/v1/jobs/%00"):
            locked.get(path, headers=bearer(token))
    assert '"GET /v1/models HTTP/1.1"' in locked.log()
    assert "-token" not in locked.log()


@pytest.mark.parametrize("path", ["/", "/static/app.js", "/v1/models", "/v1/jobs/nothing", "/nowhere", "/openapi.json"])
def test_every_answer_has_safe_headers(web: GatewayProcess, path: str) -> None:
    headers = web.get(path).headers
    policy = headers["Content-Security-Policy"]
    assert "default-src 'none'" in policy
    assert "script-src 'self';" in policy
    assert "unsafe" not in policy
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert headers["X-Frame-Options"] == "DENY"
    assert headers["Referrer-Policy"] == "no-referrer"


def test_the_page_has_no_script_or_style_in_its_html(web: GatewayProcess) -> None:
    html = web.get("/").text
    assert html.count("<script") == html.count('<script type="module" src="/static/app.js"></script>') == 1
    for inline in ("<style", " style=", "onclick", "onload", "javascript:", "http://", "https://"):
        assert inline not in html


def test_only_this_machine_s_names_are_answered_to_on_loopback(web: GatewayProcess) -> None:
    assert web.get("/v2/health/live", headers={"Host": f"localhost:{web.port}"}).status_code == 200
    assert web.get("/v2/health/live", headers={"Host": f"evil.example:{web.port}"}).status_code == 421


def test_a_page_of_another_site_cannot_send(web: GatewayProcess) -> None:
    for origin in ("https://evil.example", "null"):
        answer = web.post("/predict", files=PICTURE, headers={"Origin": origin})
        assert (answer.status_code, answer.json()["code"]) == (403, "cross_site")
    assert web.post("/predict", files=PICTURE, headers={"Origin": web.url}).status_code == 200


def test_a_method_that_is_not_there_names_those_that_are(web: GatewayProcess) -> None:
    answer = web.request("PUT", "/v1/jobs")
    assert answer.status_code == 405
    assert {"GET", "POST"} <= set(answer.headers["Allow"].split(", "))


def test_no_answer_names_a_path_of_the_server(web: GatewayProcess) -> None:
    hostile = {"Content-Type": "multipart/form-data; boundary=x"}
    answers = [
        web.get("/static/../settings.py"),
        web.get("/static/..%2fsettings.py"),
        web.get("/%00"),
        web.post("/predict", data=b"\x00" * 1000, headers=hostile),
        web.post("/v1/jobs", data=b"PK\x03\x04" + b"x" * 100, headers={"Content-Type": "application/zip"}),
        web.post("/v1/jobs", json={"items": [{"url": "file:///etc/passwd"}]}),
        web.get("/v1/models"),
        web.post("/v2/models/noop/infer", data=b"{"),
    ]
    for answer in answers:
        assert answer.status_code < 500
        for secret in ("/work", "/tmp", "/home", "/root", ".py", ".sock", "Traceback", "labelmill-"):
            assert secret not in answer.text.replace("labelmill-worker", ""), answer.text


class SlowClient:
    """Sends its request a byte at a time, for ever."""

    def __init__(self, port: int, request: bytes) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port))
        self.rest = request

    def send_one(self) -> bool:
        """One byte more; False where the server has had enough."""
        byte, self.rest = self.rest[:1], self.rest[1:]
        try:
            self.socket.sendall(byte)
        except OSError:
            return False
        return True

    def answer(self) -> bytes:
        """What the server said before it closed."""
        self.socket.settimeout(60)
        try:
            return self.socket.recv(4096)
        except ConnectionResetError:
            return b""


SLOW = {
    "heads": b"GET /v1/models HTTP/1.1\r\nHost: localhost\r\nX-Slow: " + b"x" * 9000,
    "small bodies": b"POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9000\r\n\r\n" + b"x" * 8999,
    "large bodies": b"POST /v1/jobs HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/zip\r\n"
    b"Content-Length: 900000\r\n\r\n" + b"x" * 9000,
}


def test_clients_that_send_a_byte_a_second_hold_up_nobody(web: GatewayProcess) -> None:
    _allow_sockets()
    clients = {kind: [SlowClient(web.port, request) for _ in range(300)] for kind, request in SLOW.items()}
    for kind in ("small bodies", "large bodies"):
        for client in clients[kind]:
            head, _, body = client.rest.partition(b"\r\n\r\n")
            client.socket.sendall(head + b"\r\n\r\n")
            client.rest = body
    everyone = [client for some in clients.values() for client in some]  # far more than there are threads
    stop = threading.Event()

    def trickle() -> None:
        while not stop.wait(1.0):
            for client in everyone:
                client.send_one()

    thread = threading.Thread(target=trickle)
    thread.start()
    try:
        with ThreadPoolExecutor(16) as others:
            served = [others.submit(web.post, "/predict", files=PICTURE) for _ in range(200)]
            large = {"files": ("large.jpg", b"x" * 500_000)}
            uploads = [others.submit(web.post, "/v1/jobs", files=large) for _ in range(10)]
        assert {future.result().status_code for future in served} == {200}
        assert {future.result().status_code for future in uploads} == {201}
        for some in clients.values():
            assert some[0].answer().startswith(b"HTTP/1.1 408 ")
    finally:
        stop.set()
        thread.join()
        for client in everyone:
            client.socket.close()


def _allow_sockets() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, min(hard, 4096)), hard))


def test_a_client_that_never_reads_its_answer_holds_up_nobody(web: GatewayProcess) -> None:
    job = web.post("/v1/jobs", files=[("files", (f"{n}.jpg", b"x")) for n in range(5000)]).json()["id"]
    eventually(lambda: web.get(f"/v1/jobs/{job}").json()["state"] == "ended", what="the job ends")
    clients = []
    for _ in range(10):
        client = socket.create_connection(("127.0.0.1", web.port))
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.sendall(b"GET /v1/jobs/%b/results HTTP/1.1\r\nHost: localhost\r\n\r\n" % job.encode())
        clients.append(client)
    assert web.post("/predict", files=PICTURE).status_code == 200
    assert len(web.get(f"/v1/jobs/{job}/results").text.splitlines()) == 5000
    for client in clients:
        client.close()


def test_streams_pass_also_beside_more_connections_than_select_can_count(web: GatewayProcess) -> None:
    _allow_sockets()
    job = web.post("/v1/jobs", files={"files": ("a.jpg", b"x")}).json()["id"]
    with ExitStack() as stack:
        for _ in range(1100):
            stack.enter_context(socket.create_connection(("127.0.0.1", web.port)))
        assert "event: ended" in web.get(f"/v1/jobs/{job}/events").text
        assert len(web.get(f"/v1/jobs/{job}/results").text.splitlines()) == 1


def test_streams_beyond_their_number_are_refused_and_given_back_when_their_reader_goes(redis: RedisServer) -> None:
    limits = {"LABELMILL_WEB_STREAMS": "2"}
    with worker_process(redis) as worker, gateway(redis=redis, env=limits) as web:
        worker.pause()
        job = web.post("/v1/jobs", files={"files": ("a.jpg", b"x")}).json()["id"]
        events = f"/v1/jobs/{job}/events"
        first, second = (web.get(events, stream=True) for _ in range(2))
        # urllib3 closes the connection of a reader that is thrown away
        readers = [stream.iter_lines() for stream in (first, second)]
        assert all(next(reader) for reader in readers)
        refused = web.get(events)
        assert (refused.status_code, refused.json()["code"]) == (503, "busy")
        assert int(refused.headers["Retry-After"]) > 0
        first.close()
        eventually(lambda: web.get(f"/v1/jobs/{job}/results").status_code == 200, what="a stream is free again")
        second.close()
        worker.resume()


def test_keep_alive_serves_many_requests_on_one_connection(web: GatewayProcess) -> None:
    with requests.Session() as session:
        for _ in range(50):
            assert session.post(web.url + "/predict", files=PICTURE, timeout=60).status_code == 200
        for _ in range(3):
            body = iter([b"PK", b"x" * 200_000])
            headers = {"Content-Type": "application/zip"}
            assert session.post(web.url + "/v1/jobs", data=body, headers=headers, timeout=60).status_code == 422
