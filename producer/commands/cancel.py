"""``labelmill cancel``: stop what no worker holds yet."""

from __future__ import annotations

import argparse

from jobs.wording import counted
from producer.commands.display import job_object, print_json
from producer.commands.options import add_job, connect, examples

__all__ = ["add_arguments", "run"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of ``cancel``."""
    add_job(parser)
    examples(parser, "labelmill cancel job-1f2e")


def run(args: argparse.Namespace) -> int:
    """Cancel, and say what goes on."""
    job = connect(args).job(args.job)
    before = job.status()
    status = job.cancel()
    counts = status.request_counts
    if args.json:
        print_json(job_object(status))
    elif before.ended:
        print(f"job {job.id} had ended: nothing was cancelled")
    else:
        leased = f"; with workers, and going on: {counts['leased']:,}" if counts["leased"] else ""
        print(f"job {job.id}: {counts['cancelled']:,} of {counted(counts['total'], 'image')} cancelled{leased}")
    return 0
