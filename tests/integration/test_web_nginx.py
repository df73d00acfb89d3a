"""The gateway behind a real nginx, with the site of deploy/nginx and with the configuration of docker-compose.yml."""

from __future__ import annotations

import getpass
import re
import shutil
import socket
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import requests

from tests.support.gateway import GatewayProcess, gateway
from tests.support.servers import ROOT, ProcessGroup, WorkerProcess, eventually, redis_server, worker_process

#: nginx is a package of the system's.
pytestmark = pytest.mark.debian

DEPLOY = ROOT / "deploy"
SHARED = DEPLOY / "nginx" / "labelmill-gateway.conf"
#: Of the compose network, where Docker resolves names.
DOCKER_ONLY = ("resolver 127.0.0.11 valid=5s;", "http://gateway:8000")


@dataclass(frozen=True)
class Fronted:
    """A gateway, its worker, and the address of the nginx before it."""

    gate: GatewayProcess
    worker: WorkerProcess
    url: str


def host_site(folder: Path, backend: str, port: int) -> str:
    """A host's nginx.conf that includes the site."""
    site = (DEPLOY / "nginx" / "labelmill.conf").read_text()
    site = site.replace("127.0.0.1:8000", backend).replace(":8080", f":{port}")
    temporary = f"client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy;"
    head = f"user {getpass.getuser()}; pid {folder}/pid; error_log stderr; events {{}}"
    return f"{head} http {{ access_log off; {temporary} {site} }}"


def compose_conf(folder: Path, backend: str, port: int) -> str:
    """The configuration of the container, but for the names that only Docker knows."""
    conf = (DEPLOY / "docker" / "nginx.conf").read_text()
    resolver, gate = DOCKER_ONLY
    assert resolver in conf
    assert gate in conf
    conf = conf.replace(resolver, "").replace(gate, f"http://{backend}").replace("/tmp/", f"{folder}/")
    return conf.replace("listen 8080;", f"listen 127.0.0.1:{port};")


@pytest.fixture(scope="module", params=[host_site, compose_conf], ids=["host", "compose"])
def fronted(request: pytest.FixtureRequest) -> Iterator[Fronted]:
    """A gateway with an nginx before it."""
    write: Callable[[Path, str, int], str] = request.param
    nginx = shutil.which("nginx") or pytest.fail("this test needs nginx: apt-get install nginx-light")
    folder = Path(tempfile.mkdtemp(prefix="lm-nginx-"))
    shutil.copy(SHARED, folder)
    with (
        redis_server() as redis,
        worker_process(redis) as worker,
        gateway(redis=redis, env={"LABELMILL_WEB_PROXIES": "1"}) as gate,
    ):
        port = _free_port()
        (folder / "nginx.conf").write_text(write(folder, f"127.0.0.1:{gate.port}", port))
        command = [nginx, "-p", str(folder), "-c", "nginx.conf", "-e", "stderr", "-g", "daemon off;"]
        process = ProcessGroup(command, log=folder / "log")
        try:
            url = f"http://127.0.0.1:{port}"
            eventually(lambda: _answers(url), what=lambda: f"nginx answers: {process.log()}")
            yield Fronted(gate, worker, url)
        finally:
            process.kill9()
            shutil.rmtree(folder)


def test_calls_jobs_and_events_pass_through(fronted: Fronted) -> None:
    url = fronted.url
    answer = requests.post(f"{url}/predict", files={"image": ("a.jpg", b"x")}, timeout=60)
    assert answer.status_code == 200, answer.text
    assert answer.json()["object_name"] == "noop-0"
    files = [("files", (f"{number}.jpg", b"x" * 20_000)) for number in range(100)]
    job = requests.post(f"{url}/v1/jobs", files=files, timeout=60).json()["id"]
    events = requests.get(f"{url}/v1/jobs/{job}/events", stream=True, timeout=60)
    assert "event: ended" in events.text
    assert len(requests.get(f"{url}/v1/jobs/{job}/results", timeout=60).text.splitlines()) == 100


def test_what_is_streamed_comes_while_the_job_waits(fronted: Fronted) -> None:
    fronted.worker.pause()
    job = requests.post(f"{fronted.url}/v1/jobs", files={"files": ("a.jpg", b"x")}, timeout=60).json()["id"]
    with requests.get(f"{fronted.url}/v1/jobs/{job}/events", stream=True, timeout=60) as events:
        lines = events.iter_lines(chunk_size=1)
        assert b"event: progress" in [next(lines) for _ in range(3)]
        fronted.worker.resume()
        assert b"event: ended" in list(lines)


def test_what_nginx_itself_refuses_is_a_problem_too(fronted: Fronted) -> None:
    size = str(2 << 30)
    with socket.create_connection(("127.0.0.1", int(fronted.url.rpartition(":")[2])), timeout=60) as client:
        client.sendall(f"POST /v1/jobs HTTP/1.1\r\nHost: localhost\r\nContent-Length: {size}\r\n\r\n".encode())
        assert re.match(rb'HTTP/1.1 413 .*problem\+json.*"code":"too_large"', client.recv(4096), re.DOTALL)


def test_both_configurations_are_one_but_for_where_the_gateway_is(fronted: Fronted) -> None:
    for path in (DEPLOY / "nginx" / "labelmill.conf", DEPLOY / "docker" / "nginx.conf"):
        text = path.read_text()
        assert f"include {SHARED.name};" in text
        assert "proxy_pass" not in text
    compose = (ROOT / "docker-compose.yml").read_text()
    assert f"./deploy/nginx/{SHARED.name}:/etc/labelmill/{SHARED.name}:ro" in compose


def test_a_gateway_that_is_gone_is_a_problem_that_says_when_to_come_again(fronted: Fronted) -> None:
    fronted.gate.terminate()  # the last test of this gateway
    fronted.gate.wait()
    answer = requests.get(f"{fronted.url}/v1/models", timeout=60)
    assert (answer.status_code, answer.json()["code"]) == (503, "gateway_unavailable")
    assert answer.headers["Retry-After"] == "2"


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])


def _answers(url: str) -> bool:
    try:
        return requests.get(f"{url}/v2/health/live", timeout=5).status_code == 200
    except requests.RequestException:
        return False
