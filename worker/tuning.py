"""The best pool, streams, threads and batch size for a model on this machine, measured once and kept.

A stream is what computes one batch at a time: a process of a prefork pool, or a thread of a threads pool. What is
timed is a worker's own work but for fetching: decoding a file, predicting, ranking. Plans are kept in the user's
cache folder by the model's digest and what the machine is; ``labelmill-worker tune`` prints one, and makes it anew.
"""

from __future__ import annotations

import hashlib
import logging
import os
import platform
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any

import orjson

from jobs.cores import usable_cores
from jobs.errors import LabelmillError, ModelFileError
from worker.kernels import built
from worker.models import loader
from worker.models.noop import is_noop

__all__ = ["Plan", "Trial", "ensure", "keep", "plan_file", "recall", "whole_cores"]

log = logging.getLogger(__name__)

#: Changes when plans are made in another way: older ones are not read.
FORM = 6
#: Seconds that a plan may take to be made before a worker starts without one.
PATIENCE_S = 60.0
#: A folder for each GPU that NVIDIA's driver lets this machine or container see, and what stands for one under WSL.
#: Read as files: the process that starts a worker must not touch CUDA, for its pool forks.
GPUS, WSL_GPU = Path("/proc/driver/nvidia/gpus"), Path("/dev/dxg")
#: Exit codes that say what is wrong with a model: the worker says it again, in its own line.
MODEL_CODES = range(ModelFileError.exit_code, 30)


@dataclass(frozen=True)
class Trial:
    """One setting and the images/s of all its streams together."""

    pool: str
    streams: int
    threads: int
    batch_size: int
    images_per_s: float


@dataclass(frozen=True)
class Plan:
    """The setting to work with, those that were tried, and the device that computed."""

    best: Trial
    trials: tuple[Trial, ...] = field(default=())
    device: str = "cpu"

    @property
    def stream_images_per_s(self) -> float:
        """Images/s of one stream."""
        return self.best.images_per_s / self.best.streams

    def table(self) -> Iterator[str]:
        """The settings that were tried, a line each, and the best of them marked; the device."""
        yield f"{'pool':<8} {'streams':>7} {'threads':>7} {'batch':>5} {'images/s':>9}"
        for trial in self.trials:
            mark = "  <- best" if trial == self.best else ""
            figures = f"{trial.streams:>7} {trial.threads:>7} {trial.batch_size:>5} {trial.images_per_s:>9.1f}"
            yield f"{trial.pool:<8} {figures}{mark}"
        yield f"device: {self.device}"


def whole_cores() -> int:
    """Cores that streams can fill: affinity and cgroup quota, rounded down, at least 1."""
    return max(1, int(usable_cores()))


def plan_file(digest: str, device: str = "auto") -> Path:
    """Where the plan of a model file is kept for this machine and the device that is asked for."""
    name = f"{digest.removeprefix('sha256:')[:16]}-{_machine(device)}.json"
    return loader.cache_dir() / "tuning" / name


def recall(digest: str, device: str = "auto") -> Plan | None:
    """The plan that was made before; None where there is none, or none that can be read."""
    try:
        return _plan(plan_file(digest, device).read_bytes())
    except (OSError, ValueError, TypeError, KeyError):
        return None


def keep(digest: str, plan: Plan, device: str = "auto") -> bool:
    """Keep a plan; False where the cache folder cannot be written, as in a container that may write nowhere."""
    path = plan_file(digest, device)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_suffix(f".{os.getpid()}")
        partial.write_bytes(orjson.dumps(asdict(plan), option=orjson.OPT_INDENT_2))
        partial.replace(path)
    except OSError as exc:
        log.info("the plan is not kept: %s", exc)
        return False
    return True


def ensure(
    name_or_file: str,
    *,
    model_dir: Path | None = None,
    device: str = "auto",
    say: Callable[[str], None] = log.info,
) -> Plan | None:
    """The plan of a model, made in a process of its own where there is none; None where that cannot be.

    ``say`` hears of one that is made, and how it came out. The process that starts a worker must not load a runtime
    or touch CUDA: its pool forks.
    """
    if is_noop(name_or_file):
        return None
    try:
        card, digest = loader.identify(name_or_file, model_dir=model_dir)
    except LabelmillError:
        return None  # the worker says it, with its exit code
    if plan := recall(digest, device):
        return plan
    say(f"measuring the best setting for {card.name} on this machine, once")
    try:
        plan = _made_by_child(name_or_file, model_dir, device)
    except subprocess.CalledProcessError as exc:
        if exc.returncode not in MODEL_CODES:
            say(f"it could not be measured (exit code {exc.returncode}): one process a core")
        return None
    except (OSError, subprocess.SubprocessError, ValueError, TypeError, KeyError) as exc:
        say(f"it could not be measured ({type(exc).__name__}): one process a core")
        return None
    for line in plan.table():
        say(line)
    return plan


def _machine(device: str) -> str:
    """What a plan depends on, besides the model: the processor, its cores, its GPUs, and who computes and decodes."""
    processor = ""
    with open("/proc/cpuinfo", encoding="utf-8", errors="replace") as lines:
        processor = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "")
    versions = [f"{name} {_version(name)}" for name in ("onnxruntime", "onnxruntime-gpu", "torch", "isal")]
    told = repr((FORM, platform.machine(), processor, whole_cores(), versions, built() is not None, _computer(device)))
    return hashlib.sha256(told.encode()).hexdigest()[:8]


def _computer(device: str) -> tuple[str, ...]:
    """The device that is asked for, and the GPUs that it may mean; without any, ``auto`` is the processor."""
    if device == "cpu":
        return ("cpu",)
    try:
        gpus = sorted(_model(folder) for folder in GPUS.iterdir())
    except OSError:
        gpus = ["WSL"] if WSL_GPU.exists() else []
    if device == "auto" and not gpus:
        return ("cpu",)
    return (device, os.environ.get("CUDA_VISIBLE_DEVICES", ""), *gpus)


def _model(gpu: Path) -> str:
    lines = (gpu / "information").read_text(encoding="utf-8", errors="replace").splitlines()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("Model:")), "")


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return ""


def _made_by_child(name_or_file: str, model_dir: Path | None, device: str) -> Plan:
    command = [sys.executable, "-m", "worker", "tune", name_or_file, "--json", "--device", device]
    env = {**os.environ, **({loader.MODEL_DIR_VARIABLE: str(model_dir)} if model_dir else {})}
    done = subprocess.run(command, capture_output=True, timeout=PATIENCE_S, env=env, check=True)
    return _plan(done.stdout)


def _plan(text: bytes) -> Plan:
    found: dict[str, Any] = orjson.loads(text)
    return Plan(Trial(**found["best"]), tuple(Trial(**trial) for trial in found["trials"]), found["device"])
