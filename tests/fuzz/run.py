"""Decode damaged files of every format in processes of their own, and tell what became of them.

    python -m tests.fuzz                                 24,000 files, one table
    python -m tests.fuzz --files 200000 --seed 7
    python -m tests.fuzz --sanitize                      what is in C under GCC's sanitizers, in four times the time
    python -m tests.fuzz --case png 123 --seed 7         one file again; it is written to build/fuzz/

Each file must end as a result or as an error of an item. A process that dies or hangs, an exception that is no
error of an item, a message that is no printable line, or memory that grows makes the exit code 1.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from tests.fuzz import sanitized
from tests.fuzz.child import outcome
from tests.fuzz.mutations import damaged
from tests.fuzz.seeds import FORMATS

__all__ = ["Report", "fuzz", "main", "table"]

ROOT = Path(__file__).parents[2]
KEPT = ROOT / "build" / "fuzz"
#: Seconds without a finished file after which a process is taken to hang.
HANG_S = 60.0
#: Growth of a process, from its settled state to its end, that counts as flat: the allocator's own play.
GROWTH_KIB = 48 << 10
#: A process that dies this often has shown enough.
MOST_DEATHS = 10
#: What decodes; tests put one that dies in its place.
CHILD = (sys.executable, "-m", "tests.fuzz.child")
COLUMNS = ("succeeded", "corrupt_image", "unsupported_format", "too_large", "escaped", "died", "hung")


@dataclass
class Report:
    """What became of the files of one format. Memory in KiB, of the process that had most."""

    kind: str
    outcomes: Counter[str] = field(default_factory=Counter)
    settled_kib: int = 0
    growth_kib: int = 0
    peak_kib: int = 0
    seconds: float = 0.0
    faults: list[str] = field(default_factory=list)

    @property
    def is_clean(self) -> bool:
        """Whether every file ended as a result or as an error of an item, and memory stayed flat."""
        return not self.faults and self.growth_kib <= GROWTH_KIB


def fuzz(kind: str, *, seed: int, count: int, child: Sequence[str] = CHILD) -> Report:
    """Decode ``count`` damaged files of a format; a process that dies is followed by another one after its file."""
    report, first, started = Report(kind), 0, time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        state = Path(folder) / "state"
        while first < count and len(report.faults) < MOST_DEATHS:
            code, out, stderr = _watched((*child, kind, str(seed), str(first), str(count - first), str(state)))
            if code == 0:
                _add(report, json.loads(out.splitlines()[-1]), seed)
                break
            # what the dead process had decoded before is decoded again, for its counts died with it
            number = int.from_bytes(state.read_bytes(), "big")
            what = "hung" if code is None else "died"
            report.outcomes[what] += 1
            report.faults.append(f"--case {kind} {number} --seed {seed}: {what} ({code}) {stderr.strip()[-300:]}")
            if number > first:
                _, out, _ = _watched((*child, kind, str(seed), str(first), str(number - first), str(state)))
                _add(report, json.loads(out.splitlines()[-1]), seed)
            first = number + 1
    report.seconds = time.monotonic() - started
    return report


def _watched(command: Sequence[str]) -> tuple[int | None, str, str]:
    """Exit code (``None``: it hung), stdout and stderr of one process, whose last argument is its state file."""
    state = Path(command[-1])
    with subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, errors="replace"
    ) as process:
        last = b""
        while True:
            try:
                out, err = process.communicate(timeout=HANG_S)
            except subprocess.TimeoutExpired:
                now = state.read_bytes() if state.exists() else b""
                if now != last:
                    last = now
                    continue
                process.kill()
                return None, *process.communicate()
            return process.returncode, out, err


def _add(report: Report, found: dict[str, Any], seed: int) -> None:
    report.outcomes.update(found["outcomes"])
    report.settled_kib = max(report.settled_kib, found["settled_kib"])
    report.peak_kib = max(report.peak_kib, found["peak_kib"])
    report.growth_kib = max(report.growth_kib, found["resident_kib"] - found["settled_kib"])
    for case in found["escaped"]:
        report.faults.append(f"--case {report.kind} {case['number']} --seed {seed}:\n{case['traceback']}")


def table(reports: Sequence[Report]) -> str:
    """One line for each format: files by outcome, then memory and pace."""
    heads = ("format", "files", *COLUMNS, "growth_MB", "peak_MB", "files/s")
    rows: list[tuple[str, ...]] = [heads]
    for report in reports:
        total = report.outcomes.total()
        rows.append(
            (
                report.kind,
                str(total),
                *(str(report.outcomes[column]) for column in COLUMNS),
                f"{report.growth_kib / 1024:.1f}",
                f"{report.peak_kib / 1024:.0f}",
                f"{total / report.seconds:.0f}",
            )
        )
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join("  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)) for row in rows)


def _parser() -> argparse.ArgumentParser:
    doc = (__doc__ or "").partition("\n")
    parser = argparse.ArgumentParser(
        prog="python -m tests.fuzz", description=doc[0], epilog=doc[2], formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--files", type=int, default=24_000, help="damaged files over all formats (24000)")
    parser.add_argument("--seed", type=int, default=0, help="another seed, other damage (0)")
    parser.add_argument("--processes", type=int, default=2, help="processes at a time (2)")
    parser.add_argument("--sanitize", action="store_true", help="what is in C under GCC's sanitizers")
    parser.add_argument("--case", nargs=2, metavar=("FORMAT", "NUMBER"), help="decode one case, and keep its file")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Print the table; 0 where every file ended as it must, else 1."""
    options = _parser().parse_args(argv)
    if options.case:
        return _one_case(options.case[0], int(options.case[1]), options.seed)
    child = sanitized.command(sanitized.build(KEPT)) if options.sanitize else CHILD
    run = partial(fuzz, seed=options.seed, count=-(-options.files // len(FORMATS)), child=child)
    with ThreadPoolExecutor(options.processes) as pool:
        reports = list(pool.map(run, FORMATS))
    print(table(reports))
    for report in reports:
        for fault in report.faults:
            print(fault, file=sys.stderr)
        if report.growth_kib > GROWTH_KIB:
            print(f"{report.kind}: memory grew by {report.growth_kib} KiB", file=sys.stderr)
    return 0 if all(report.is_clean for report in reports) else 1


def _one_case(kind: str, number: int, seed: int) -> int:
    KEPT.mkdir(parents=True, exist_ok=True)
    file = KEPT / f"{seed}-{number}.{kind}"
    file.write_bytes(damaged(seed, kind, number))
    print(file, outcome(file.read_bytes(), number))
    return 0
