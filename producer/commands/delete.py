"""``labelmill delete``: forget jobs with their results."""

from __future__ import annotations

import argparse

from jobs.errors import JobError
from producer.commands.display import print_json
from producer.commands.options import add_broker, add_json, connect, examples

__all__ = ["add_arguments", "run"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of ``delete``."""
    parser.add_argument("jobs", nargs="+", metavar="JOB", help="the id that submit printed")
    parser.add_argument("--force", action="store_true", help="also a job that has not ended")
    add_broker(parser)
    add_json(parser)
    examples(parser, "labelmill delete job-1f2e", "labelmill delete job-1f2e job-3d4c --force")


def run(args: argparse.Namespace) -> int:
    """Delete them all; nothing, where one of them is not there or still runs."""
    client = connect(args)
    names = list(dict.fromkeys(args.jobs))
    jobs = [client.job(name) for name in names]
    running = [job.id for job in jobs if not args.force and not job.status().ended]
    if running:
        raise JobError(f"job {running[0]} has not ended: cancel it first, or use --force; nothing was deleted")
    for job in jobs:
        job.delete(force=True)
    if args.json:
        print_json({"deleted": names})
    else:
        print(f"deleted: {', '.join(names)}")
    return 0
