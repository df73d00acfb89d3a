"""The gateway behind a real nginx with the site of deploy/nginx."""

from __future__ import annotations

import getpass
import shutil
import socket
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests

from tests.support.gateway import GatewayProcess, gateway
from tests.support.servers import ROOT, ProcessGroup, RedisServer, eventually, worker_process

#: nginx is a package of the system's.
pytestmark = pytest.mark.debian

SITE = ROOT / "deploy" / "nginx" / "labelmill.conf"


@pytest.fixture
def web(redis: RedisServer) -> Iterator[tuple[GatewayProcess, str]]:
    """A gateway, and the address of the nginx before it."""
    nginx = shutil.which("nginx") or pytest.fail("this test needs nginx: apt-get install nginx-light")
    folder = Path(tempfile.mkdtemp(prefix="lm-nginx-"))
    with worker_process(redis), gateway(redis=redis, env={"LABELMILL_WEB_PROXIES": "1"}) as gate:
        port = _free_port()
        site = SITE.read_text().replace("127.0.0.1:8000", f"127.0.0.1:{gate.port}").replace(":8080", f":{port}")
        (folder / "nginx.conf").write_text(
            f"user {getpass.getuser()}; pid {folder}/pid; error_log stderr; daemon off; events {{}}"
            f"http {{ access_log off; client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy; {site} }}"
        )
        process = ProcessGroup([nginx, "-p", str(folder), "-c", "nginx.conf", "-e", "stderr"], log=folder / "log")
        try:
            url = f"http://127.0.0.1:{port}"
            eventually(lambda: _answers(url), what=f"nginx answers: {process.log()}")
            yield gate, url
        finally:
            process.kill9()
            shutil.rmtree(folder)


def test_calls_jobs_and_events_pass_through(web: tuple[GatewayProcess, str]) -> None:
    _, url = web
    answer = requests.post(f"{url}/predict", files={"image": ("a.jpg", b"x")}, timeout=60)
    assert answer.status_code == 200, answer.text
    assert answer.json()["object_name"] == "noop-0"
    files = [("files", (f"{number}.jpg", b"x" * 20_000)) for number in range(100)]
    job = requests.post(f"{url}/v1/jobs", files=files, timeout=60).json()["id"]
    events = requests.get(f"{url}/v1/jobs/{job}/events", stream=True, timeout=60)
    assert "event: ended" in events.text
    assert len(requests.get(f"{url}/v1/jobs/{job}/results", timeout=60).text.splitlines()) == 100


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])


def _answers(url: str) -> bool:
    try:
        return requests.get(f"{url}/v2/health/live", timeout=5).status_code == 200
    except requests.RequestException:
        return False
