"""``labelmill audit``: prove that a job's books add up."""

from __future__ import annotations

import argparse

from jobs.wording import counted
from producer.commands.display import print_fields, print_json
from producer.commands.options import add_job, connect, examples

__all__ = ["EXIT_OUT_OF_BALANCE", "add_arguments", "run"]

#: Exit code where an image is outside of the books.
EXIT_OUT_OF_BALANCE = 8


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of ``audit``."""
    add_job(parser)
    examples(parser, "labelmill audit job-1f2e", "labelmill audit job-1f2e --json")


def run(args: argparse.Namespace) -> int:
    """Go through the books, and list what is outside of them."""
    audit = connect(args).job(args.job).audit()
    counts, back, late = audit.status.request_counts, audit.status.recovered, audit.status.late_finishes
    if args.json:
        print_json(
            {
                "id": audit.status.job,
                "balanced": audit.is_balanced,
                "complete": audit.is_complete,
                "request_counts": counts,
                "recounted": audit.recounted,
                "open_chunks": audit.open_chunks,
                "recovered": back,
                "late_finishes": late,
                "problems": audit.problems,
            }
        )
    else:
        ends = ("succeeded", "failed", "cancelled", "expired", "queued", "leased")
        print_fields(
            [
                ("job", audit.status.job),
                ("books", f"{counts['total']:,} = " + " + ".join(f"{counts[name]:,} {name}" for name in ends)),
                ("recounted", ", ".join(f"{n:,} {name}" for name, n in audit.recounted.items())),
                ("open chunks", f"{audit.open_chunks:,}" if audit.open_chunks else ""),
                ("recovered", f"{counted(back, 'chunk')} of silent workers" if back else ""),
                ("dropped", f"{late:,} finishes that came too late" if late else ""),
                ("verdict", "balanced" if audit.is_balanced else f"{len(audit.problems)} problems"),
                ("", "" if audit.is_complete else "the job changed meanwhile: open chunks were only counted"),
                *(("problem", problem) for problem in audit.problems),
            ]
        )
    return 0 if audit.is_balanced else EXIT_OUT_OF_BALANCE
