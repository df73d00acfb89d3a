"""The table of peers: on the terminal, and as Markdown for ``benchmarks/README.md``."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from rich.table import Table

__all__ = ["ratio", "table", "to_markdown"]

COLUMNS = (
    "",
    "photo",
    "tiny",
    "memory, MB (photo / tiny)",
    "progress",
    "an error for each image",
    "kill -9 of a model process",
)


def ratio(rates: Sequence[float], bare: Sequence[float]) -> float:
    """The median of the ratios within a round."""
    return statistics.median(one / limit for one, limit in zip(rates, bare, strict=True))


def rows(results: Mapping[str, Any]) -> list[list[str]]:
    """A row for each contender, as strings, the fastest on photographs first."""
    contenders = results["contenders"].values()
    ordered = sorted(contenders, key=lambda one: -one["works"].get("photo", {}).get("ratio", 0))
    return [_bare(results), *map(_row, ordered)]


def _bare(results: Mapping[str, Any]) -> list[str]:
    works = results["bare"]
    speeds = [
        _speed({"ratio": 1.0, "rate": works[work]["rate"]} if work in works else None) for work in ("photo", "tiny")
    ]
    return ["the bare loop", *speeds, "-", "none", "none", "-"]


def _row(contender: Mapping[str, Any]) -> list[str]:
    works = contender["works"]
    version = contender["version"]
    return [
        f"{contender['title']} ({version})" if version else contender["title"],
        _speed(works.get("photo")),
        _speed(works.get("tiny")),
        _memory(works.values()),
        contender["progress"],
        contender.get("broken", "-"),
        contender.get("kill", "-"),
    ]


def _memory(works: Iterable[Mapping[str, Any]]) -> str:
    return " / ".join(f"{work['pss_mb']:.0f}" for work in works if "pss_mb" in work) or "-"


def _speed(work: Mapping[str, Any] | None) -> str:
    if work and "failed" in work:
        return f"failed: {work['failed']}"
    return f"{work['ratio']:.2f} ({work['rate']:,.0f} images/s)" if work and "ratio" in work else "-"


def table(results: Mapping[str, Any]) -> Table:
    """For the terminal."""
    made = Table(title="as ratios to the bare loop in the same round", show_lines=True)
    for column in COLUMNS:
        made.add_column(column)
    for row in rows(results):
        made.add_row(*row)
    return made


def to_markdown(results: Mapping[str, Any]) -> str:
    """The same, for a page."""
    lines = [COLUMNS, ["---"] * len(COLUMNS), *rows(results)]
    return "".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |\n" for line in lines)
