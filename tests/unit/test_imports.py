"""Imports point one way: a producer needs no model runtime, and an ONNX worker no torch."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
HEAVY = ("torch", "torchvision", "onnxruntime", "onnx", "numpy", "PIL")


def loaded_by(code: str, suspects: tuple[str, ...]) -> list[str]:
    script = f"{code}\nimport sys; print([name for name in {suspects} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, cwd=ROOT)
    found: list[str] = ast.literal_eval(done.stdout.splitlines()[-1])
    return found


@pytest.mark.parametrize(
    "module", ["tasks", "producer.cli", "producer.client", "producer.commands.classify", "jobs.ledger"]
)
def test_a_producer_loads_nothing_that_computes(module: str) -> None:
    assert loaded_by(f"import {module}", HEAVY) == []


def test_an_onnx_worker_loads_no_torch() -> None:
    code = "from worker.export.prepare import prepare; path = prepare(); from worker import warm; "
    code += "from jobs.settings import Settings; from worker.models.loader import load; load(path)"
    assert loaded_by(code, ("torch", "torchvision", "onnx")) == []


def test_a_workers_main_process_loads_no_runtime() -> None:
    assert loaded_by("import worker.lifecycle, worker.serve", ("torch", "onnxruntime")) == []


def sources(folder: str) -> list[Path]:
    return sorted((ROOT / folder).rglob("*.py"))


@pytest.mark.parametrize(
    ("folder", "forbidden"),
    [("producer", {"worker"}), ("jobs", {"worker", "producer", "tasks"}), ("worker", {"producer"})],
)
def test_arrows_point_one_way(folder: str, forbidden: set[str]) -> None:
    wrong = []
    for path in sources(folder):
        for node in ast.walk(ast.parse(path.read_text())):
            names = [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            names += [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            wrong += [f"{path.relative_to(ROOT)}: {name}" for name in names if name.partition(".")[0] in forbidden]
    assert wrong == []
