"""Plans: what was measured is kept, and read by whoever it fits."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest

from jobs.settings import Settings
from tests.support.servers import RedisServer, redis_server, worker_process
from worker import pace, trials, tuning, warm
from worker.cli import main
from worker.models import loader
from worker.tuning import Plan, Trial

MODEL = "cifar10-cnn"
pytestmark = pytest.mark.usefixtures("cifar10_cnn")
USUAL = ("prefork", 2, 1)


@pytest.fixture(autouse=True)
def cache_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The models stay where they are; plans go into a folder of this test."""
    monkeypatch.setenv("LABELMILL_MODEL_DIR", str(loader.default_model_dir()))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return tmp_path / "labelmill"


@pytest.fixture
def redis() -> Iterator[RedisServer]:
    with redis_server() as server:
        yield server


def test_a_plan_is_made_of_real_work_and_kept() -> None:
    plan = trials.make_plan(MODEL, 2)
    assert [(trial.pool, trial.streams, trial.threads) for trial in plan.trials] == trials.settings_of(2)
    assert all(trial.images_per_s > 0 and trial.batch_size >= 1 for trial in plan.trials)
    assert plan.best in plan.trials
    assert plan.device == "cpu"
    assert tuning.keep("sha256:" + "ab" * 32, plan)
    assert tuning.recall("sha256:" + "ab" * 32) == plan
    assert tuning.recall("sha256:" + "cd" * 32) is None


def test_another_setting_must_be_much_faster_in_every_round() -> None:
    threads = ("threads", 2, 1)
    for rates, best in (
        ([100.0, 100.0, 100.0], USUAL),
        ([150.0, 150.0, 105.0], USUAL),
        ([150.0, 150.0, 111.0], threads),
    ):
        found, _ = trials._judged({USUAL: [100.0] * 3, threads: rates}, {1: 4})
        assert (found.pool, found.streams, found.threads) == best


def test_batch_sizes_are_compared_in_turns_and_by_the_median() -> None:
    class Streams:
        """Streams whose rates are known: one of each batch size for each round, in turns."""

        def __init__(self, **rates: list[float]) -> None:
            self._rates = {int(name.removeprefix("of_")): iter(found) for name, found in rates.items()}
            self.known = sorted(self._rates)
            self.sizes: list[int] = []

        def run(self, size: int, seconds: float) -> float:
            self.sizes.append(size)
            return next(self._rates[size])

    streams = Streams(of_1=[100, 100, 100, 150, 100], of_2=[104, 104, 90, 104, 104])
    assert pace.compared(streams.run, streams.known, rounds=5, turn_s=0.1) == {1: 100, 2: 104}
    assert streams.sizes == [1, 2] * 5


def test_of_batch_sizes_that_are_alike_the_middle_one_is_taken() -> None:
    assert pace.choice({1: 96.0, 2: 97.0, 4: 100.0}) == 2
    assert pace.choice({1: 90.0, 2: 97.0, 4: 100.0}) == 4
    assert pace.choice({1: 90.0, 2: 100.0, 4: 97.0}) == 2
    assert pace.choice({1: 100.0, 2: 93.0, 4: 90.0}) == 1
    assert pace.choice({1: 96.0, 2: 94.0, 4: 100.0, 8: 96.0}) == 4
    assert pace.choice({8: 96.0}) == 8


def test_few_batch_sizes_are_compared_in_full() -> None:
    assert pace.near({1: 95.0, 2: 100.0, 4: 92.0, 8: 80.0}) == [1, 2, 4]
    assert pace.near({1: 50.0, 2: 80.0, 4: 100.0}) == [4]
    assert pace.near({1: 95.0, 2: 96.0, 4: 97.0, 8: 98.0, 16: 99.0}) == [4, 8, 16]


def test_pictures_that_are_decoded_differ_and_those_of_before_a_turn_do_not_count(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    decoded: list[bytes] = []
    monkeypatch.setattr(pace, "decode_into", lambda data, *_: decoded.append(data))
    work = pace.Work(loader.load(MODEL), 3)
    clock = iter([0.0, 0.01, 0.03, 1.0, 1.05, 1.11])
    monkeypatch.setattr(pace, "time", SimpleNamespace(perf_counter=lambda: next(clock)))
    assert work.run(3, 0.1) == pytest.approx(6 / 0.11)
    assert (len(decoded), len(set(decoded))) == (12, 6)  # those of two batches come again


def test_no_batch_is_tried_that_takes_longer_than_a_chunk(monkeypatch: pytest.MonkeyPatch) -> None:
    runtime = loader.load(MODEL)
    monkeypatch.setattr(pace, "LONGEST_S", 0.0)
    assert list(pace.predicting(runtime, seconds=0.0)) == [1]


def test_a_setting_that_cannot_be_had_is_left_out(caplog: pytest.LogCaptureFixture) -> None:
    with ExitStack() as stack:
        gone = trials._ready(stack, ("prefork", 1, 1), loader.load(MODEL), ("no-such-model", "cpu", 1))
    assert gone is None
    assert "1 streams of the prefork pool are left out: no model 'no-such-model'" in caplog.text


def test_on_a_gpu_streams_are_processes_that_decode_and_not_more_than_it_has_room_for() -> None:
    assert trials.settings_of(1, "cuda") == [("prefork", 1, 1)]
    assert trials.settings_of(8, "cuda") == [("prefork", 8, 1), ("threads", 8, 1), ("prefork", 4, 1)]
    assert max(streams for _, streams, _ in trials.settings_of(128, "cuda")) == trials.MOST_ON_GPU


def test_a_plan_is_for_one_device_and_the_gpus_that_can_be_seen(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    digest, plan = "sha256:" + "ab" * 32, Plan(Trial("prefork", 2, 1, 64, 900.0), device="cuda")
    monkeypatch.setattr(tuning, "GPUS", tmp_path / "gpus")
    monkeypatch.setattr(tuning, "WSL_GPU", tmp_path / "no-wsl")
    assert tuning.plan_file(digest, "auto") == tuning.plan_file(digest, "cpu")

    gpu = tmp_path / "gpus" / "0000:01:00.0"
    gpu.mkdir(parents=True)
    (gpu / "information").write_text("Model: \t\t NVIDIA Wheel\nIRQ: 1\n")
    assert tuning.keep(digest, plan, "auto")
    assert tuning.recall(digest, "auto") == plan
    assert tuning.recall(digest, "cpu") is None
    assert tuning.recall(digest, "cuda") is None
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3")
    assert tuning.recall(digest, "auto") is None


def test_a_plan_that_cannot_be_read_is_made_anew(cache_folder: Path) -> None:
    digest = loader.identify(MODEL)[1]
    path = tuning.plan_file(digest)
    path.parent.mkdir(parents=True)
    for damaged in ("", "{}", '{"best": {"pool": 1}, "trials": []}'):
        path.write_text(damaged)
        assert tuning.recall(digest) is None


def test_a_cache_folder_that_cannot_be_written_costs_only_the_plan(cache_folder: Path) -> None:
    cache_folder.mkdir()
    (cache_folder / "tuning").write_text("a file in the way")
    assert not tuning.keep("sha256:00", Plan(Trial("prefork", 1, 1, 4, 100.0)))


def test_a_process_takes_batch_and_rate_from_the_plan_unless_it_is_told_otherwise() -> None:
    runtime = loader.load(MODEL)
    tuning.keep(runtime.digest, Plan(Trial("prefork", 2, 1, 7, 200.0)))
    assert warm._pace(runtime, Settings()) == (7, 100.0)
    assert warm._pace(runtime, Settings(batch_size=3))[0] == 3
    assert warm._pace(runtime, Settings(threads=2))[0] in pace.BATCH_SIZES
    assert warm._pace(runtime, Settings(tune="off"))[0] in pace.BATCH_SIZES
    tuning.keep(runtime.digest, Plan(Trial("prefork", 2, 1, 500, 200.0), device="cuda"))
    assert warm._pace(runtime, Settings())[0] in pace.BATCH_SIZES


def test_noop_and_a_missing_model_need_no_plan() -> None:
    assert tuning.ensure("noop:5") is None
    assert tuning.ensure("no-such-model") is None


def test_where_the_device_is_not_there_the_worker_alone_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    said: list[str] = []
    assert tuning.ensure(MODEL, device="cuda", say=said.append) is None
    assert [line.partition(" ")[0] for line in said] == ["measuring"]


def test_serve_ends_with_one_line_where_the_device_is_not_there(redis: RedisServer) -> None:
    command = [sys.executable, "-m", "worker", "serve", "--device", "cuda", "--model", MODEL, "--concurrency", "1"]
    env = {**os.environ, "CUDA_VISIBLE_DEVICES": "", "LABELMILL_TUNE": "off", "LABELMILL_BROKER_URL": redis.broker_url}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=env)
    assert done.returncode == 16
    assert done.stderr.count("labelmill-worker:") == 1
    assert "'cuda' cannot be used here" in done.stderr
    assert "Traceback" not in done.stderr


def test_the_command_prints_the_table_and_names_the_best(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["tune", MODEL]) == 0
    head, *rows, device, kept = capsys.readouterr().out.splitlines()
    assert head.split() == ["pool", "streams", "threads", "batch", "images/s"]
    assert sum("<- best" in row for row in rows) == 1
    assert device == "device: cpu"
    assert Path(kept.removeprefix("kept in ")).is_file()


def test_a_worker_measures_once_and_starts_with_what_it_found(redis: RedisServer) -> None:
    all_told = ["--batch-size=3"]  # pool and concurrency are told throughout
    for told, often in ((all_told, 0), ([], 1), ([], 0)):
        with worker_process(redis, model=MODEL, env=dict(os.environ, LABELMILL_TUNE="auto"), options=told) as worker:
            log = worker.log()
        assert log.count("measuring the best setting") == often
        assert ("batches of 3," in log) == bool(told)
        assert "on cpu in float32" in log


def test_the_process_that_forks_the_pool_loads_no_runtime(redis: RedisServer) -> None:
    with worker_process(redis, model=MODEL, concurrency=1, env=dict(os.environ, LABELMILL_TUNE="off")) as worker:
        families = {process.pid: process for process in [psutil.Process(worker.pid)]}
        families |= {child.pid: child for child in families[worker.pid].children()}
        loaded = {pid: _libraries(process) for pid, process in families.items()}
    assert loaded.pop(worker.pid) == set()
    assert {"onnxruntime"} in loaded.values()


def _libraries(process: psutil.Process) -> set[str]:
    """Runtimes whose libraries are in its memory."""
    paths = [mapped.path for mapped in process.memory_maps()]
    return {name for name in ("onnxruntime", "torch") for path in paths if f"/{name}/" in path}
