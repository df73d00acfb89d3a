"""What the README says, done."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import orjson
import pytest

from tests.support.servers import redis_server, worker_process
from worker.export.prepare import prepare

ROOT = Path(__file__).resolve().parents[2]
PHOTOS = ROOT / "examples" / "photos"
README = (ROOT / "README.md").read_text()


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)


def test_the_python_of_the_readme_runs_as_it_stands() -> None:
    with redis_server() as redis, worker_process(redis, model=str(prepare()), concurrency=1, file_roots=[PHOTOS]):
        env = os.environ | {"LABELMILL_BROKER_URL": redis.broker_url}
        said = []
        for block in blocks("python"):
            code = block.replace("redis://127.0.0.1:6379/0", redis.broker_url).replace("/data/photos", str(PHOTOS))
            code = code.replace('"cat.jpg"', '"animals/chelsea.jpg"').replace("classify.delay", "print(classify.delay")
            code = code.replace(".get()", ".get())")
            done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=False)
            assert done.returncode == 0, done.stderr
            said.append(done.stdout)
    assert "coffee.jpg espresso" in said[0]
    assert "'failed': 1" in said[0]
    assert "tiger cat" in said[1]


def test_the_table_of_the_readme_is_what_the_demo_prints() -> None:
    command = [sys.executable, "-m", "producer", "classify", str(PHOTOS)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    shown = README.partition("`make demo` prints:\n\n```\n")[2].partition("```")[0].splitlines()
    rows = {line.split()[0]: line.split()[1] for line in done.stdout.splitlines() if " " in line.strip()}
    promised = {line.split()[0]: line.split()[1] for line in shown[:-1] if line[0] != " "}
    assert {name: rows[name] for name in promised} == promised
    assert shown[-1].startswith("13 images, 1 failed, 12 succeeded")


def test_the_result_lines_of_the_readme_have_the_keys_of_real_ones() -> None:
    command = [sys.executable, "-m", "producer", "classify", str(PHOTOS), "--format", "jsonl"]
    done = subprocess.run(command, capture_output=True, check=True)
    real = {line["custom_id"]: line for line in map(orjson.loads, done.stdout.splitlines())}
    for line in map(orjson.loads, blocks("json")[0].splitlines()):
        assert line.keys() == real[line["custom_id"]].keys()
        if line["status"] == "succeeded":
            (shown,), best = line["labels"], real[line["custom_id"]]["labels"][0]
            assert shown == best | {"score": pytest.approx(best["score"], abs=0.01)}  # other processors round otherwise
