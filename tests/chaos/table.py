"""The table that ``make chaos`` prints, and the file it writes."""

from __future__ import annotations

import json
import platform
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from tests.chaos.figures import Dose, Fault, Measured

__all__ = ["print_table", "verdict", "write"]


def verdict(fault: Fault, measured: Measured, dose: Dose) -> str:
    """``yes``, or what is broken; ``-`` for a row that is only there to compare with."""
    if broken := fault.broken(measured, dose):
        return "NO: " + "; ".join(broken)
    return "yes" if fault.judged else "-"


def print_table(rows: Mapping[Fault, Measured], doses: Mapping[Fault, Dose]) -> None:
    """To stdout; as wide as it must be where that is no terminal."""
    table = Table(show_lines=True)
    for column in ("fault", "dose", "must show", "measured", "met"):
        table.add_column(column, overflow="fold")
    for fault, measured in rows.items():
        dose = ", ".join(f"{n:,} {name}" for name, n in doses[fault].items())
        table.add_row(fault.title, dose, _must(fault), fault.tell(measured), verdict(fault, measured, doses[fault]))
    console = Console()
    Console(width=None if console.is_terminal else 160, markup=False).print(table)


def _must(fault: Fault) -> str:
    return (
        ", ".join(promise.text for promise in fault.promises if not promise.is_dose)
        if fault.judged
        else "its own figures"
    )


def write(path: Path, rows: Mapping[Fault, Measured], doses: Mapping[Fault, Dose], seed: int) -> None:
    """The same as JSON, with every recovery's seconds."""
    path.parent.mkdir(parents=True, exist_ok=True)
    found = {"seed": seed, "python": platform.python_version(), "machine": platform.machine()}
    faults = [_row(fault, measured, doses[fault]) for fault, measured in rows.items()]
    path.write_text(json.dumps({**found, "faults": faults}, indent=2) + "\n")


def _row(fault: Fault, measured: Measured, dose: Dose) -> dict[str, Any]:
    return {
        "fault": fault.name,
        "title": fault.title,
        "dose": dict(dose),
        "figures": dict(measured.figures),
        "recoveries_s": [round(seconds, 3) for seconds in measured.recoveries_s],
        "most_deliveries": measured.most_deliveries,
        "seconds": round(measured.seconds, 1),
        "measured": fault.tell(measured),
        "met": not fault.broken(measured, dose),
        "broken": fault.broken(measured, dose),
    }
