"""``python -m tests.chaos``: every fault in its dose, a table, and exit code 1 where something is not as it must be.

``CHAOS_SECONDS`` (or ``--seconds``) lengthens it: when every fault had its dose, the faults are gone through again
with other random moments, and their figures added, for as long as that time has not passed since the start.
"""

from __future__ import annotations

import argparse
import itertools
import os
import random
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from tests.chaos.faults import FAULTS
from tests.chaos.figures import Dose, Fault, Measured
from tests.chaos.table import print_table, verdict, write

__all__ = ["main"]

RESULTS = Path("build/chaos/results.json")


def main(argv: Sequence[str] | None = None) -> int:
    """Run, print, write; returns the exit code."""
    args = _parser().parse_args(argv)
    seed = args.seed if args.seed is not None else random.SystemRandom().randrange(1 << 32)
    chosen = [fault for fault in FAULTS if not args.only or fault.name in args.only]
    doses = {fault: fault.short if args.short else fault.dose for fault in chosen}
    print(f"seed {seed}: the same moments again with --seed {seed}", flush=True)
    rows = _strike(doses, seed, args.seconds)
    print_table(rows, doses)
    write(args.output, rows, doses, seed)
    print(f"written to {args.output}")
    return int(any(fault.broken(measured, doses[fault]) for fault, measured in rows.items()))


def _strike(doses: Mapping[Fault, Dose], seed: int, seconds: float) -> dict[Fault, Measured]:
    """Once through all, and again while time is left."""
    began = time.monotonic()
    rows = {fault: Measured() for fault in doses}
    for number in itertools.count():
        for fault, dose in doses.items():
            if number and time.monotonic() - began > seconds:
                return rows
            _strike_one(fault, dose, rows[fault], random.Random(f"{seed} {fault.name} {number}"))
        if time.monotonic() - began > seconds:
            return rows
    return rows


def _strike_one(fault: Fault, dose: Dose, row: Measured, rng: random.Random) -> None:
    began = time.monotonic()
    measured = fault.strike(dose, rng)
    measured.seconds = time.monotonic() - began
    row.add(measured)
    print(f"{measured.seconds:5.0f} s  {fault.name}: {fault.tell(measured)}", flush=True)
    if fault.broken(measured, dose):
        print(f"         {verdict(fault, measured, dose)}", flush=True)


def _parser() -> argparse.ArgumentParser:
    names = [fault.name for fault in FAULTS]
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description="Faults on real processes, and a table.")
    parser.add_argument("--only", action="append", choices=names, help="this fault; again for more; default: all")
    parser.add_argument("--short", action="store_true", help="the short doses of make test")
    parser.add_argument("--seed", type=int, metavar="N", help="of all random moments; default: another each time")
    parser.add_argument("--seconds", type=float, metavar="S", default=float(os.environ.get("CHAOS_SECONDS") or 0))
    parser.add_argument("--output", type=Path, metavar="FILE", default=RESULTS, help=f"default: {RESULTS}")
    return parser


if __name__ == "__main__":
    sys.exit(main())
