"""Servers of Debian's packages: RabbitMQ, and two Redis with three Sentinels; all on 127.0.0.1."""

from __future__ import annotations

import os
import shutil
import socket
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import redis as redis_py
from redis.exceptions import RedisError

from jobs.settings import Settings
from tests.support.scrape import free_port
from tests.support.servers import ProcessGroup, RedisServer, eventually

__all__ = ["SentinelGroup", "rabbitmq", "sentinels"]

MASTER = "mymaster"


def program(name: str, package: str) -> str:
    """The path of an installed program; the test fails where its package is missing."""
    # the wrapper in the path changes the user; the server itself runs as whoever starts it
    inner = ":".join(map(str, Path("/usr/lib/rabbitmq/lib").glob("rabbitmq_server-*/sbin")))
    found = shutil.which(name, path=inner) or shutil.which(name)
    if found is None:
        pytest.fail(f"{name} is not installed: apt-get install --no-install-recommends {package}", pytrace=False)
    return found


@contextmanager
def rabbitmq() -> Iterator[str]:
    """A RabbitMQ for the block; gives its URL."""
    folder = Path(tempfile.mkdtemp(prefix="lm-rabbit-"))
    port, dist, epmd = free_port(), free_port(), free_port()
    (folder / "enabled_plugins").write_text("[].\n")
    inet = "-kernel inet_dist_use_interface {127,0,0,1}"
    env = {
        "HOME": str(folder),
        "RABBITMQ_NODENAME": f"lm{port}@localhost",
        "RABBITMQ_NODE_IP_ADDRESS": "127.0.0.1",
        "RABBITMQ_NODE_PORT": str(port),
        "RABBITMQ_DIST_PORT": str(dist),
        "RABBITMQ_MNESIA_BASE": str(folder / "mnesia"),
        "RABBITMQ_LOG_BASE": str(folder / "log"),
        "RABBITMQ_ENABLED_PLUGINS_FILE": str(folder / "enabled_plugins"),
        "RABBITMQ_FEATURE_FLAGS_FILE": str(folder / "feature_flags"),
        "ERL_CRASH_DUMP_SECONDS": "0",
        "RABBITMQ_PID_FILE": str(folder / "pid"),
        "RABBITMQ_CONF_ENV_FILE": str(folder / "none"),
        "RABBITMQ_CONFIG_FILE": str(folder / "none"),
        "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": inet,
        "ERL_EPMD_PORT": str(epmd),
        "ERL_EPMD_ADDRESS": "127.0.0.1",
    }
    server = ProcessGroup([program("rabbitmq-server", "rabbitmq-server")], log=folder / "out.log", env=env)
    try:
        eventually(lambda: _accepts(port), what=f"RabbitMQ answers; see {server.log_file}")
        yield f"amqp://guest:guest@127.0.0.1:{port}//"
    finally:
        server.kill9()
        _end_epmd(epmd)
        shutil.rmtree(folder, ignore_errors=True)


class SentinelGroup(RedisServer):
    """A master, a replica that follows it, and three Sentinels that make the replica the master when it is gone."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.ports = [free_port(), free_port()]
        self.watchers = [free_port() for _ in range(3)]
        self.broker_url = ";".join(f"sentinel://127.0.0.1:{port}" for port in self.watchers)
        self.settings = Settings(broker_url=self.broker_url, sentinel_master=MASTER)
        self.processes: dict[int, ProcessGroup] = {}

    @property
    def client(self) -> redis_py.Redis:
        """A client of the first master."""
        return redis_py.Redis(port=self.ports[0])

    def start(self) -> None:
        """Start all five, and wait until the Sentinels know each other and the replica."""
        for port in self.ports:
            follow = ["--replicaof", "127.0.0.1", str(self.ports[0])] if port != self.ports[0] else []
            options = ["--save", "", "--appendonly", "no", "--repl-diskless-sync-delay", "0", *follow]
            self._run(port, program("redis-server", "redis-server"), *options)
        for port in self.watchers:
            config = self.folder / f"sentinel-{port}.conf"
            lines = [f"monitor {MASTER} 127.0.0.1 {self.ports[0]} 2", f"down-after-milliseconds {MASTER} 1000"]
            lines.append(f"failover-timeout {MASTER} 5000")
            config.write_text("".join(f"sentinel {line}\n" for line in lines))
            self._run(port, program("redis-sentinel", "redis-sentinel"), config=config)
        eventually(self._is_whole, what="Sentinels and replica know each other")

    def kill9(self) -> None:
        """End all of it."""
        for process in self.processes.values():
            process.kill9()
        self.processes.clear()

    def kill_master(self) -> None:
        """SIGKILL the first master."""
        self.processes.pop(self.ports[0]).kill9()

    def master(self) -> int:
        """The port of today's master, as the Sentinels say."""
        client = redis_py.Redis(port=self.watchers[0])
        found: dict[str, object] = client.sentinel_master(MASTER)
        return int(str(found["port"]))

    def _run(self, port: int, binary: str, *options: str, config: Path | None = None) -> None:
        folder = self.folder / str(port)
        folder.mkdir()
        command = [binary, *([str(config)] if config else []), "--port", str(port), "--bind", "127.0.0.1"]
        command += ["--dir", str(folder), *options]
        self.processes[port] = ProcessGroup(command, log=folder / "log")

    def _is_whole(self) -> bool:
        try:
            states = [redis_py.Redis(port=port).sentinel_master(MASTER) for port in self.watchers]
            replicating = int(self.client.info("replication")["connected_slaves"]) == 1
        except RedisError:
            return False
        return replicating and all(s["num-other-sentinels"] == 2 and s["num-slaves"] == 1 for s in states)


@contextmanager
def sentinels() -> Iterator[SentinelGroup]:
    """A group for the block."""
    folder = Path(tempfile.mkdtemp(prefix="lm-sentinel-"))
    group = SentinelGroup(folder)
    try:
        group.start()
        yield group
    finally:
        group.kill9()
        shutil.rmtree(folder, ignore_errors=True)


def _accepts(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def _end_epmd(port: int) -> None:
    """Erlang's name server leaves the session of whoever started it; it is known by the port it was given."""
    mine = f"ERL_EPMD_PORT={port}".encode()
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            if (entry / "comm").read_text().strip() == "epmd" and mine in (entry / "environ").read_bytes():
                os.kill(int(entry.name), 9)
        except OSError:
            continue  # it ended by itself
