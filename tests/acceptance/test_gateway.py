"""``labelmill gateway`` as a process: how it starts, how it ends, and that nothing is left of it."""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from tests.support.gateway import GatewayProcess, gateway
from tests.support.servers import ROOT, eventually, redis_server, worker_process

PICTURE = {"image": ("cat.jpg", b"any bytes", "image/jpeg")}


def run(*options: str, env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    """The command to its end, which must come by itself."""
    ours = {name: value for name, value in os.environ.items() if not name.startswith("LABELMILL_")}
    command = [sys.executable, "-m", "producer", "gateway", *options]
    return subprocess.run(
        command, cwd=ROOT, env=ours | (env or {}), capture_output=True, text=True, timeout=60, check=False
    )


@pytest.fixture
def scratch() -> Iterator[Path]:
    """An empty folder for temporary files, with a short name: a socket's path may have 107 characters."""
    folder = Path(tempfile.mkdtemp(prefix="lm-"))
    yield folder
    shutil.rmtree(folder)


def family(process: GatewayProcess) -> list[psutil.Process]:
    """The gateway's processes, its Redis, its worker, and all of theirs."""
    return [psutil.Process(process.pid), *psutil.Process(process.pid).children(recursive=True)]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=["SIGTERM", "Ctrl-C"])
def test_a_stop_ends_all_that_was_started_and_leaves_nothing(number: signal.Signals, scratch: Path) -> None:
    with gateway(env={"TMPDIR": str(scratch)}) as web:
        assert web.post("/predict", files=PICTURE).status_code == 200
        processes = family(web)
        assert len(processes) >= 5
        os.kill(web.pid, number)
        assert web.wait() == 0
        psutil.wait_procs(processes, timeout=10)
        assert [process for process in processes if process.is_running()] == []
    assert list(scratch.iterdir()) == []


def test_killing_the_gateway_ends_its_redis_and_its_worker(scratch: Path) -> None:
    with gateway(env={"TMPDIR": str(scratch)}) as web:
        processes = family(web)
        os.kill(web.pid, signal.SIGKILL)
        web.wait()
        eventually(lambda: not any(process.is_running() for process in processes), what="nothing is left")


def test_a_stop_lets_the_calls_under_way_finish_and_ends_streams() -> None:
    with redis_server() as redis, worker_process(redis) as worker, gateway(redis=redis) as web:
        worker.pause()
        job = web.post("/v1/jobs", files={"files": ("a.jpg", b"x")}).json()["id"]
        stream = web.get(f"/v1/jobs/{job}/events", stream=True)
        told = stream.iter_lines()
        assert next(told)
        answers = []
        caller = threading.Thread(target=lambda: answers.append(web.post("/predict", files=PICTURE)))
        caller.start()
        eventually(lambda: redis.client.llen("noop.interactive"), what="the call waits")
        web.terminate()
        list(told)
        worker.resume()
        caller.join()
        assert answers[0].status_code == 200
        assert web.wait() == 0


def test_a_gateway_whose_own_worker_has_ended_ends_and_says_so() -> None:
    with gateway() as web:
        worker = next(child for child in psutil.Process(web.pid).children() if "serve" in child.cmdline())
        worker.kill()
        assert web.wait() == 70, web.log()
        assert "labelmill: the embedded worker has ended" in web.log()


def test_a_process_of_the_gateway_that_dies_is_replaced() -> None:
    with gateway("--processes", "1") as web:
        assert web.get("/v2/health/live").status_code == 200
        master = psutil.Process(web.pid)
        (child,) = [p for p in master.children() if "gateway" in p.cmdline()]
        child.kill()
        child.wait(10)
        eventually(
            lambda: [p for p in master.children() if "gateway" in p.cmdline() and p.pid != child.pid], what="another"
        )
        assert web.post("/predict", files=PICTURE).status_code == 200


@pytest.mark.parametrize(
    ("options", "env", "code", "says"),
    [
        (["--broker", "redis://127.0.0.1:1/0"], {}, 5, "Redis does not answer at redis://127.0.0.1:1/0"),
        (["--model", "no-such-model"], {}, 12, "no-such-model"),
        (["--host", "256.1.1.1"], {}, 2, "cannot listen at 256.1.1.1"),
        (["--debug", "--host", "0.0.0.0"], {}, 2, "--debug runs any code"),
        (["--broker", "x"], {}, 2, "LABELMILL_LEDGER_URL must name a Redis"),
        ([], {"LABELMILL_WEB_MAX_BODY": "much"}, 2, "LABELMILL_WEB_MAX_BODY"),
        ([], {"LABELMILL_API_TOKENS": "feeble"}, 2, "LABELMILL_API_TOKENS"),
    ],
)
def test_what_cannot_start_says_why_in_one_line(options: list[str], env: dict[str, str], code: int, says: str) -> None:
    done = run("--port", "0", *options, env=env)
    assert done.returncode == code, done.stderr
    assert "--debug" not in options or "starting" not in done.stderr
    line = done.stderr.strip().splitlines()[-1]
    assert line.startswith("labelmill: ")
    assert says in line
    assert "Traceback" not in done.stderr
    assert "feeble" not in done.stderr


def test_a_port_that_is_taken_is_said_before_anything_starts() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = run("--port", str(port))
    assert done.returncode == 2
    assert f"cannot listen at 127.0.0.1 port {port}" in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_flask_s_own_server_runs_only_for_debugging_and_only_for_this_machine() -> None:
    with redis_server() as redis:
        refused = run("--debug", "--host", "0.0.0.0", "--port", "0", "--broker", redis.broker_url)
        assert refused.returncode == 2
        assert "127.0.0.1 only" in refused.stderr
    with gateway() as web:
        assert web.get("/").headers["Server"] == "gunicorn"


def test_the_demo_target_serves_on_a_fresh_machine() -> None:
    recipe = re.search(r"^web:.*\n\t(.*)$", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert recipe
    assert recipe[1] == "$(BIN)/labelmill gateway --open"
