"""``labelmill jobs``: all jobs of a Redis."""

from __future__ import annotations

import argparse

from producer.commands.display import ago, job_object, print_json, print_table
from producer.commands.options import add_broker, add_json, connect, examples

__all__ = ["add_arguments", "run"]

STATES = ("in_progress", "cancelling", "ended")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of ``jobs``."""
    parser.add_argument("--state", choices=STATES, help="only jobs in this state")
    parser.add_argument("--model", metavar="M", help="only jobs for this model")
    add_broker(parser)
    add_json(parser)
    examples(parser, "labelmill jobs", "labelmill jobs --state in_progress --json")


def run(args: argparse.Namespace) -> int:
    """Print the jobs, the oldest first."""
    found = [
        status
        for status in connect(args).jobs()
        if args.state in (None, status.state) and args.model in (None, status.model)
    ]
    if args.json:
        print_json([job_object(status) for status in found])
        return 0
    columns = ("job", "state", "model", "total", "done", "failed", "created")
    rows = [
        (s.job, s.state, s.model, s.request_counts["total"], s.done, s.request_counts["failed"], ago(s.created_ms))
        for s in found
    ]
    print_table(columns, rows, numbers=("total", "done", "failed"))
    return 0
