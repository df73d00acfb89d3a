"""``make bench``: the table of goals with this machine's figures, ``build/bench/results.json`` and a picture."""

from __future__ import annotations

import argparse
import json
import sys
import time
from dataclasses import asdict
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks import costs, throughput
from benchmarks.contest import Goal
from benchmarks.machine import machine
from benchmarks.picture import draw
from benchmarks.variants import FOLDER

#: Whose versions stand beside the figures.
PACKAGES = ("celery", "kombu", "redis", "onnxruntime", "numpy", "pillow", "torch")
PARTS = ("photo", "tiny", "int8", "large", "latency", "memory", "scaling", "start")


def main() -> int:
    """Measure what was asked for; exit code 1 where a goal is not met."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"of {', '.join(PARTS)}; default: all")
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args()
    parts = args.parts or PARTS
    if unknown := set(parts) - set(PARTS):
        parser.error(f"no such part: {', '.join(unknown)}")
    goals: list[Goal] = []
    raw: dict[str, Any] = {}
    for part in parts:
        began = time.perf_counter()
        found, raw[part] = measure(part, args.rounds)
        goals += found
        for goal in found:
            print(f"{goal.name}: {goal.value:.3g} {goal.unit}", file=sys.stderr)
        print(f"-- {part}: {time.perf_counter() - began:.0f} s", file=sys.stderr)
    FOLDER.mkdir(parents=True, exist_ok=True)
    results = {
        "machine": machine(PACKAGES),
        "goals": [{**asdict(goal), "met": goal.met} for goal in goals],
        "rounds": raw,
    }
    (FOLDER / "results.json").write_text(json.dumps(results, indent=1))
    draw(raw, FOLDER / "results.png")
    show(goals)
    return 0 if all(goal.met for goal in goals) else 1


def measure(part: str, rounds: int) -> tuple[list[Goal], Any]:
    """The goals of one part, and the raw figures behind them."""
    if part in ("photo", "tiny", "int8", "large"):
        goals, contest = getattr(throughput, part)(rounds)
        return goals, contest.rates
    if part == "memory":
        return costs.redis_memory(), {}
    goals, figures = getattr(costs, part)(rounds)
    return goals, figures


def show(goals: list[Goal]) -> None:
    """The table."""
    table = Table(title="goals")
    for column in ("what", "figure", "goal", "met"):
        table.add_column(column)
    for goal in goals:
        unit = f" {goal.unit}" if goal.unit else ""
        sign = "at most" if goal.at_most else "at least"
        met = "yes" if goal.met else "[red]no[/red]"
        table.add_row(goal.name, f"{goal.value:.3g}{unit}", f"{sign} {goal.goal:.3g}{unit}", met)
    Console(width=None if sys.stdout.isatty() else 120).print(table)


if __name__ == "__main__":
    sys.exit(main())
