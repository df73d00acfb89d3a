"""``labelmill retry``: run the failed images of a job again."""

from __future__ import annotations

import argparse

from jobs.wording import counted
from producer.commands.display import print_json
from producer.commands.options import add_job, connect, examples

__all__ = ["add_arguments", "run"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of ``retry``."""
    add_job(parser)
    parser.add_argument("--code", metavar="CODE", help="only what failed with this code, such as fetch_timeout")
    examples(parser, "labelmill retry job-1f2e", "labelmill retry job-1f2e --code fetch_timeout")


def run(args: argparse.Namespace) -> int:
    """Queue them again, and say how many."""
    job = connect(args).job(args.job)
    retried = job.retry(code=args.code)
    if args.json:
        print_json({"id": job.id, "retried": retried})
    else:
        again = f"{counted(retried, 'image')} to run again" if retried else "nothing to run again"
        print(f"job {job.id}: {again}")
    return 0
