"""``make compose-test``: build, up, scale to 3, 500 images through the gateway, kill a worker, all labelled, down.

Meanwhile Prometheus (Debian's) reads the workers, and every query of the dashboard and every alert is tried; Flower's
page is opened in Chromium. Grafana is in no Debian package: its files are checked, it is not started.

A Docker engine of its own runs in a temporary folder and a network of its own: nothing of it can be left behind. Base
images come from debootstrap and packages from wheels that are downloaded first, so that no image registry is needed;
with ``COMPOSE_TEST_BASE`` (a folder) both are kept for the next run. Needs root, and Debian's packages docker.io,
docker-compose, debootstrap, iptables, chromium and chromium-driver.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from tests.compose.engine import Engine, leave_the_network, prepare_base
from tests.compose.gateway import Gateway, zipped
from tests.compose.monitoring import Prometheus, flower_answers, tasks_in_flower
from tests.support.servers import eventually
from worker.export.prepare import prepare

ROOT = Path(__file__).resolve().parents[2]
IMAGES, WORKERS = 500, 3
NEEDED = {
    "dockerd": "docker.io",
    "docker-compose": "docker-compose",
    "debootstrap": "debootstrap",
    "iptables": "iptables",
    "chromium": "chromium",
    "chromedriver": "chromium-driver",
}
SERVICES = ("redis", "worker", "gateway", "nginx", "flower", "prometheus")
PROFILES = ("--profile", "flower", "--profile", "monitoring")
SHIPPED = ("jobs", "producer", "worker", "deploy")
FILES = ("Dockerfile", "docker-compose.yml", ".dockerignore", "pyproject.toml", "constraints.txt", "README.md")


def main() -> int:
    """Run it; 0 where everything held."""
    missing = [package for program, package in NEEDED.items() if not shutil.which(program)]
    if missing or os.getuid():
        what = f"apt-get install --no-install-recommends {' '.join(missing)}" if missing else "run it as root"
        print(f"compose-test: cannot run here: {what}", file=sys.stderr)
        return 1
    began = time.monotonic()
    kept = os.environ.get("COMPOSE_TEST_BASE")
    with tempfile.TemporaryDirectory(prefix="lm-compose-") as temporary:
        folder = Path(temporary)
        base = prepare_base(Path(kept) if kept else folder / "base", ROOT / "constraints.txt")
        project = _copy(folder / "project", base.wheels)
        leave_the_network()
        with Engine(folder / "engine") as engine:
            engine.load(base.root)
            say(began, "base image imported")
            _run(engine, project, began)
    say(began, "down, and nothing left")
    return 0


def _run(engine: Engine, project: Path, began: float) -> None:
    compose = engine.compose(project)
    compose("--profile", "flower", "build", "worker", "gateway", "flower")
    say(began, "images built")
    try:
        compose("up", "-d", "--no-build", "--scale", f"worker={WORKERS}", *SERVICES)
        gateway = Gateway(engine.port)
        eventually(lambda: gateway.workers() == WORKERS, 180, what=f"{WORKERS} workers serve")
        eventually(lambda: engine.healthy("worker") == WORKERS, 120, what="their health checks say so")
        assert engine.within("worker", "id", "-u") == "10001\n"
        compiled = "from worker.kernels import built; print(built() is not None)"
        assert engine.within("worker", "python3", "-c", compiled) == "True\n"
        say(began, f"{WORKERS} workers ready")
        flower_answers(engine.flower_port)
        prometheus = Prometheus(engine.prometheus_port)
        eventually(lambda: prometheus.targets() == WORKERS, 120, what="Prometheus reads every worker")
        with gateway.submit(zipped(ROOT / "examples" / "photos" / "coffee.jpg", IMAGES)) as job:
            eventually(lambda: job.counts().get("leased", 0) > 0, 180, what="work is under way")
            engine.kill_one("worker")
            assert job.state() != "ended", "the worker was killed too late"
            say(began, "a worker killed")
            eventually(lambda: job.state() == "ended", 300, what="the job has ended")
            lines = job.results()
        assert len({line["custom_id"] for line in lines}) == len(lines) == IMAGES
        assert all(line["status"] == "succeeded" for line in lines)
        say(began, f"all {IMAGES} images labelled")
        _look(engine, prometheus)
        say(began, "dashboard, alerts and Flower's page seen")
        compose(*PROFILES, "down", "--volumes", "--timeout", "60")
    except BaseException:
        compose("logs", "--tail", "40", check=False)
        raise
    engine.assert_empty()


def _look(engine: Engine, prometheus: Prometheus) -> None:
    dashboard = ROOT / "deploy" / "grafana" / "dashboards" / "labelmill.json"
    eventually(lambda: not prometheus.silent_panels(dashboard), 90, what="every panel shows something")
    engine.within("prometheus", "promtool", "test", "rules", "/etc/prometheus/alerts_test.yml")
    found = prometheus.alerts()
    # no answer at all would mean that no rule was loaded
    assert {"inactive"} <= set(found.values()) <= {"inactive", "pending"}, found
    tasks_in_flower(engine.flower_port, "labelmill.ticket")


def _copy(target: Path, wheels: Path) -> Path:
    """What a user has: the tracked files, an .env, a model folder and wheels for a build without an index."""
    tracked = subprocess.run(
        ["git", "ls-files", "-z", "--", *SHIPPED, *FILES, "tasks.py", "celeryconfig.py"],
        cwd=ROOT, capture_output=True, check=True, text=True,
    ).stdout.split("\0")  # fmt: skip
    for name in filter(None, tracked):
        (target / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, target / name)
    shutil.copytree(wheels, target / "deploy" / "docker" / "wheels", dirs_exist_ok=True)
    (target / "models").mkdir()
    shutil.copy(prepare("efficientnet-lite0"), target / "models")
    (target / "data").mkdir()
    return target


def say(began: float, what: str) -> None:
    """A line of progress."""
    print(f"compose-test {time.monotonic() - began:6.1f} s  {what}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
