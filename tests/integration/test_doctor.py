"""Every finding of the doctor, provoked once, and a healthy installation without any."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image

from jobs.cores import usable_cores
from jobs.settings import Settings
from producer.client import Labelmill
from producer.doctor import CHECKS, Finding, Patient, fleet, machine, packages
from producer.doctor import redis as redis_checks
from producer.doctor.examine import admit, examine
from producer.sources import Files
from tests.support.servers import ProcessGroup, RedisServer, WorkerProcess, eventually, worker_process

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def patient(redis: RedisServer) -> Patient:
    return admit(redis.settings)


def only(found: list[Finding], code: str, severity: str) -> str:
    """What the one finding says."""
    assert [(finding.code, finding.severity) for finding in found] == [(code, severity)]
    assert found[0].remedy
    return found[0].what


def package(site: Path, name: str, version: str, *needs: str) -> None:
    """An installed package, as pip leaves it."""
    folder = site / f"{name}-{version}.dist-info"
    folder.mkdir(parents=True)
    lines = ["Metadata-Version: 2.1", f"Name: {name}", f"Version: {version}", *(f"Requires-Dist: {n}" for n in needs)]
    (folder / "METADATA").write_text("\n".join(lines) + "\n")


def doctor(redis: RedisServer, *options: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "producer", "doctor", *options]
    env = os.environ | {"LABELMILL_BROKER_URL": redis.broker_url}
    return subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, check=False)


def test_a_healthy_installation_has_no_finding(redis_aof: RedisServer) -> None:
    with worker_process(redis_aof, concurrency=1):
        assert examine(replace(admit(redis_aof.settings), site=[])) == []


def test_a_redis_that_evicts_is_an_error_with_an_exit_code(redis_aof: RedisServer) -> None:
    redis_aof.client.config_set("maxmemory-policy", "allkeys-lru")
    shown = doctor(redis_aof, "--json")
    assert shown.returncode == 9
    assert [finding["code"] for finding in json.loads(shown.stdout)][:1] == ["redis_evicts"]


def test_a_warning_fails_only_when_asked_to(redis: RedisServer) -> None:
    assert "WARNING redis_forgets" in doctor(redis).stdout
    assert doctor(redis).returncode == 0
    assert doctor(redis, "--strict").returncode == 9


def test_redis_without_append_only_file(patient: Patient) -> None:
    only(list(redis_checks.redis_forgets(patient)), "redis_forgets", "warning")


def test_redis_that_cannot_write_its_files(redis: RedisServer) -> None:
    (redis.folder / "dump.rdb").mkdir()  # where the snapshot belongs
    redis.client.bgsave()
    eventually(lambda: redis.client.info("persistence")["rdb_last_bgsave_status"] == "err")
    only(list(redis_checks.redis_cannot_persist(admit(redis.settings))), "redis_cannot_persist", "error")


def test_no_redis(redis: RedisServer) -> None:
    redis.kill9()
    only(examine(replace(admit(redis.settings), site=[])), "redis_unreachable", "error")


def test_clocks_that_differ(patient: Patient) -> None:
    late = replace(patient, now_s=lambda: time.time() - 60)
    assert "60.0 s apart" in only(list(redis_checks.clocks_differ(late)), "clocks_differ", "warning")
    assert not list(redis_checks.clocks_differ(patient))


def test_applications_on_one_broker_with_two_visibility_timeouts(
    noop_worker: WorkerProcess, redis: RedisServer, tmp_path: Path
) -> None:
    (tmp_path / "theirs.py").write_text(
        f"from celery import Celery\napp = Celery('theirs', broker={redis.broker_url!r})\n"
        "app.conf.broker_transport_options = {'visibility_timeout': 7}\n"
    )
    command = [sys.executable, "-m", "celery", "-A", "theirs", "worker", "--pool=solo", "-n", "theirs@%h"]
    theirs = ProcessGroup(command, log=tmp_path / "log", env={"PYTHONPATH": str(tmp_path)})
    try:
        patient = admit(redis.settings)
        found = eventually(lambda: list(redis_checks.visibility_timeouts_differ(patient)))
    finally:
        theirs.kill9()
    what = only(found, "visibility_timeouts_differ", "error")
    assert ": 60 s" in what
    assert ": 7 s" in what


@pytest.mark.parametrize("name", ["celery", "kombu"])
def test_celery_or_kombu_too_old(name: str, patient: Patient, tmp_path: Path) -> None:
    package(tmp_path, name, "5.6.2")
    assert f"{name} 5.6.2" in only(
        list(packages.celery_too_old(replace(patient, site=[str(tmp_path)]))), "celery_too_old", "error"
    )
    assert not list(packages.celery_too_old(patient))


def test_torchvision_of_another_torch(patient: Patient, tmp_path: Path) -> None:
    package(tmp_path, "torch", "2.12.1")
    package(tmp_path, "torchvision", "0.28.0", "numpy", "torch==2.13.0")
    found = list(packages.torchvision_mismatch(replace(patient, site=[str(tmp_path)])))
    assert "needs torch 2.13.0" in only(found, "torchvision_mismatch", "error")


def test_torchvision_for_cuda_beside_a_torch_for_the_cpu(patient: Patient, tmp_path: Path) -> None:
    package(tmp_path, "torch", "2.13.0+cpu")
    package(tmp_path, "torchvision", "0.28.0", "torch==2.13.0")
    found = list(packages.torchvision_mismatch(replace(patient, site=[str(tmp_path)])))
    assert "nms" in only(found, "torchvision_mismatch", "warning")


def test_a_limit_on_pixels_that_is_off(patient: Patient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", None)
    assert "off" in only(list(packages.pixels_unlimited(patient)), "pixels_unlimited", "warning")


def test_a_limit_on_pixels_that_is_too_high(patient: Patient) -> None:
    high = replace(patient, settings=Settings(max_pixels=10**9))
    assert "1,000,000,000" in only(list(packages.pixels_unlimited(high)), "pixels_unlimited", "warning")


def test_more_threads_than_the_quota(patient: Patient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "999")
    assert "OMP_NUM_THREADS=999" in only(list(machine.too_many_threads(patient)), "too_many_threads", "warning")


def test_processes_with_more_threads_than_there_are_cores(noop_worker: WorkerProcess, redis: RedisServer) -> None:
    cores = int(usable_cores())
    crowded = admit(replace(redis.settings, threads=cores + 1))
    what = only(list(machine.too_many_threads(crowded)), "too_many_threads", "warning")
    assert f"2 processes with {cores + 1} threads each" in what


@pytest.mark.parametrize(
    "files",
    [{"cpu.max": "50000 100000"}, {"cpu/cpu.cfs_quota_us": "50000", "cpu/cpu.cfs_period_us": "100000"}],
    ids=["cgroup v2", "cgroup v1"],
)
def test_more_processes_than_the_quota(
    files: dict[str, str], noop_worker: WorkerProcess, redis: RedisServer, tmp_path: Path
) -> None:
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    assert usable_cores(tmp_path) == 0.5
    found = list(machine.too_many_threads(replace(admit(redis.settings), cgroup=tmp_path)))
    assert "2 processes" in only(found, "too_many_threads", "warning")


@pytest.mark.parametrize(
    ("member", "files", "expected"),
    [
        ("0::/system.slice/mill.service", {"system.slice/mill.service/cpu.max": "50000 100000"}, 0.5),
        ("0::/a/b", {"a/b/cpu.max": "max 100000", "a/cpu.max": "25000 100000"}, 0.25),
        ("3:cpuset:/\n1:cpu,cpuacct:/mill", {"cpu/mill/cpu.cfs_quota_us": "50000"}, 0.5),
        ("0::/docker/only-seen-outside", {"cpu.max": "50000 100000"}, 0.5),
        ("0::/../other", {"cpu.max": "50000 100000"}, 0.5),
    ],
)
def test_the_quota_is_that_of_the_group_of_the_process_and_those_around_it(
    member: str, files: dict[str, str], expected: float, tmp_path: Path
) -> None:
    (tmp_path / "member").write_text(member)
    for name, text in files.items():
        (tmp_path / "groups" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "groups" / name).write_text(text)
    assert usable_cores(tmp_path / "groups", tmp_path / "member") == expected


def test_no_quota_is_the_affinity(tmp_path: Path) -> None:
    (tmp_path / "cpu.max").write_text("max 100000")
    assert usable_cores(tmp_path) == len(os.sched_getaffinity(0))


def test_torch_in_the_main_process_of_a_worker_that_forks(redis: RedisServer, tmp_path: Path) -> None:
    (tmp_path / "early.py").write_text("import torch\nfrom tasks import app\n")
    path = f"{tmp_path}:{ROOT}"
    with worker_process(redis, app="early", concurrency=1, env={"PYTHONPATH": path}) as worker:
        found = list(machine.torch_before_fork(admit(redis.settings)))
    assert str(worker.pid) in only(found, "torch_before_fork", "error")


def test_a_root_that_is_not_there(patient: Patient, tmp_path: Path) -> None:
    settings = Settings(file_roots=(tmp_path, tmp_path / "gone"))
    found = list(machine.roots_unreadable(replace(patient, settings=settings)))
    assert str(tmp_path / "gone") in only(found, "roots_unreadable", "error")


def test_work_for_a_model_that_nobody_serves(noop_worker: WorkerProcess, redis: RedisServer) -> None:
    client = Labelmill(settings=redis.settings)
    client.submit(Files([ROOT / "examples" / "photos"]), model="other")
    what = only(list(fleet.model_not_served(admit(redis.settings))), "model_not_served", "error")
    assert "'other'" in what


def test_every_check_is_asked() -> None:
    modules = (fleet, machine, packages, redis_checks)
    offered = {getattr(module, name) for module in modules for name in module.__all__ if name != "cores"}
    assert offered == set(CHECKS)
