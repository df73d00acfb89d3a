"""Plans: what was measured is kept, and read by whoever it fits."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from jobs.settings import Settings
from tests.support.servers import RedisServer, redis_server, worker_process
from worker import trials, tuning, warm
from worker.cli import main
from worker.models import loader
from worker.tuning import Plan, Trial

MODEL = "cifar10-cnn"
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
    assert warm._pace(runtime, Settings(threads=2))[0] in warm.BATCH_SIZES
    assert warm._pace(runtime, Settings(tune="off"))[0] in warm.BATCH_SIZES


def test_noop_and_a_missing_model_need_no_plan() -> None:
    assert tuning.ensure("noop:5") is None
    assert tuning.ensure("no-such-model") is None


def test_the_command_prints_the_table_and_names_the_best(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["tune", MODEL]) == 0
    head, *rows, kept = capsys.readouterr().out.splitlines()
    assert head.split() == ["pool", "streams", "threads", "batch", "images/s"]
    assert sum("<- best" in row for row in rows) == 1
    assert Path(kept.removeprefix("kept in ")).is_file()


def test_a_worker_measures_once_and_starts_with_what_it_found(redis: RedisServer) -> None:
    for told, often in (([], 1), ([], 0), (["--batch-size=3"], 0)):
        with worker_process(redis, model=MODEL, env=dict(os.environ, LABELMILL_TUNE="auto"), options=told) as worker:
            log = worker.log()
        assert log.count("measuring the best setting") == often
        assert ("batches of 3," in log) == bool(told)
