"""A Docker engine of our own in a network of its own, and base images that need no registry."""

from __future__ import annotations

import ctypes
import fcntl
import os
import socket
import struct
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

from tests.support.scrape import free_port
from tests.support.servers import ProcessGroup, eventually

__all__ = ["Base", "Engine", "leave_the_network", "prepare_base"]

IMAGE = "labelmill-base:bookworm"
SERVICE = "com.docker.compose.service"
PACKAGES = "ca-certificates,gcc,libc6-dev,python3,python3-venv,nginx-light,prometheus,redis-server"
#: The same with an entrypoint, as the image of Prometheus's own has one.
PROMETHEUS = "labelmill-prometheus:bookworm"
#: Of Linux: unshare(2), and netdevice(7).
CLONE_NEWNET, SIOCSIFFLAGS, IFF_UP = 0x40000000, 0x8914, 1


@dataclass(frozen=True)
class Base:
    """A root file system with Python, Redis and nginx, and the wheels of the project's packages."""

    root: Path
    wheels: Path


def prepare_base(folder: Path, constraints: Path) -> Base:
    """Make it where it is not there yet."""
    base = Base(folder / "root", folder / "wheels")
    if not (base.root / "usr" / "bin" / "prometheus").exists():
        folder.mkdir(parents=True, exist_ok=True)
        command = ["debootstrap", "--variant=minbase", f"--include={PACKAGES}", "bookworm", str(base.root)]
        _quietly(command)  # from the mirror that debootstrap itself knows
    if not base.wheels.is_dir():
        pip = [sys.executable, "-m", "pip", "download", "--quiet", "--dest", str(base.wheels), "--only-binary=:all:"]
        pip += ["--constraint", str(constraints), "--python-version", "3.11", "setuptools>=77", "flower"]
        # Debian's Python is older than the patch release with which redis-py needs no async-timeout
        pip += ["async-timeout"]
        _quietly([*pip, *_requirements(constraints.parent)])
    return base


def leave_the_network() -> None:
    """Give this process a network of its own with nothing but loopback; all that it starts from now on shares it.

    An engine changes the firewall and the bridges of the network that it is in, and leaves some of it behind.
    """
    if ctypes.CDLL(None, use_errno=True).unshare(CLONE_NEWNET):
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    with socket.socket() as any_socket:
        fcntl.ioctl(any_socket, SIOCSIFFLAGS, struct.pack("16sH14x", b"lo", IFF_UP))


class Engine:
    """dockerd between ``with`` and its end, with all it keeps in one folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.socket = folder / "docker.sock"
        self.port, self.flower_port, self.prometheus_port = free_port(), free_port(), free_port()

    def __enter__(self) -> Engine:
        self.folder.mkdir(parents=True)
        places = {"data-root": "data", "exec-root": "exec", "pidfile": "pid"}
        options = [f"--{name}={self.folder / place}" for name, place in places.items()]
        # no default bridge: it would stay on the machine; compose makes a network of its own and removes it
        command = ["dockerd", f"--host=unix://{self.socket}", "--bridge=none", *options]
        self.process = ProcessGroup(command, log=self.folder / "log")
        eventually(self.socket.exists, what=lambda: f"dockerd answers; it said: {self.process.log()[-500:]}")
        return self

    def __exit__(self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None) -> None:
        for container in self("ps", "-aq").split():
            self("rm", "-f", container)
        self.process.terminate()
        self.process.wait()
        self.process.kill9()

    def __call__(self, *command: str) -> str:
        """What a docker command prints."""
        done = subprocess.run(["docker", *command], env=self._env(), capture_output=True, text=True, check=True)
        return done.stdout

    def load(self, root: Path) -> None:
        """Make the base image of a root file system."""
        with subprocess.Popen(["tar", "-C", str(root), "-c", "."], stdout=subprocess.PIPE) as tar:
            subprocess.run(["docker", "import", "-", IMAGE], env=self._env(), stdin=tar.stdout, check=True,
                           stdout=subprocess.DEVNULL)  # fmt: skip
        dockerfile = f'FROM {IMAGE}\nENTRYPOINT ["prometheus"]\n'
        subprocess.run(["docker", "build", "--quiet", "--tag", PROMETHEUS, "-"], env=self._env(), input=dockerfile,
                       text=True, check=True, stdout=subprocess.DEVNULL)  # fmt: skip

    def compose(self, project: Path) -> Callable[..., None]:
        """docker-compose for a project's folder."""
        env = {
            "REDIS_PASSWORD": "secret",
            "PYTHON_IMAGE": IMAGE,
            "REDIS_IMAGE": IMAGE,
            "REDIS_USER": "0:0",
            "NGINX_IMAGE": IMAGE,
            "PROMETHEUS_IMAGE": PROMETHEUS,
            "PIP_NO_INDEX": "1",
            "LABELMILL_PORT": str(self.port),
            "FLOWER_PORT": str(self.flower_port),
            "PROMETHEUS_PORT": str(self.prometheus_port),
        }

        def run(*command: str, check: bool = True) -> None:
            subprocess.run(["docker-compose", "--project-name", "lm", *command], cwd=project,
                           env=self._env() | env, check=check, stdout=sys.stderr)  # fmt: skip

        return run

    def healthy(self, service: str) -> int:
        """How many containers of a service their health checks find well."""
        return len(self("ps", "-q", "--filter", "health=healthy", "--filter", f"label={SERVICE}={service}").split())

    def within(self, service: str, *command: str) -> str:
        """What a command prints in one container of a service."""
        return self("exec", self._containers(service)[0], *command)

    def kill_one(self, service: str) -> None:
        """SIGKILL for one container of a service; it stays down."""
        first = self._containers(service)[0]
        self("update", "--restart=no", first)
        self("kill", "--signal=KILL", first)

    def assert_empty(self) -> None:
        """No container, no volume and no network of ours is left."""
        assert not self("ps", "-aq").split(), "containers are left"
        assert not self("volume", "ls", "-q").split(), "volumes are left"
        assert "lm_" not in self("network", "ls"), "networks are left"

    def _containers(self, service: str) -> list[str]:
        return self("ps", "-q", "--filter", f"label={SERVICE}={service}").split()

    def _env(self) -> dict[str, str]:
        return os.environ | {"DOCKER_HOST": f"unix://{self.socket}", "DOCKER_BUILDKIT": "0"}


def _requirements(project: Path) -> list[str]:
    import tomllib

    table = tomllib.loads((project / "pyproject.toml").read_text())["project"]
    return [*table["dependencies"], *table["optional-dependencies"]["onnx"], *table["optional-dependencies"]["web"]]


def _quietly(command: list[str]) -> None:
    """Run it; its words are shown only when it fails."""
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"compose-test: {' '.join(command[:3])} failed:\n{done.stdout[-2000:]}{done.stderr[-2000:]}")
