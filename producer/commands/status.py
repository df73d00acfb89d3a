"""``labelmill status``: how far a job is."""

from __future__ import annotations

import argparse

from jobs.records import JobStatus
from jobs.wording import counted
from producer.commands.display import ago, errors_console, job_object, print_fields, print_json
from producer.commands.options import add_job, connect, examples
from producer.job import Job
from producer.progress import Watch, describe

__all__ = ["add_arguments", "print_status", "run"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of ``status``."""
    add_job(parser)
    parser.add_argument("--watch", action="store_true", help="go on until the job has ended")
    examples(
        parser, "labelmill status job-1f2e", "labelmill status job-1f2e --watch", "labelmill status job-1f2e --json"
    )


def run(args: argparse.Namespace) -> int:
    """Print the state, once or until the end."""
    job = connect(args).job(args.job)
    status = (_stream(job) if args.json else _watch(job)) if args.watch else job.status()
    if args.json and not args.watch:
        print_json(job_object(status))
    elif not args.json:
        print_status(status)
    return 0


def _watch(job: Job) -> JobStatus:
    status = job.status()
    with Watch(errors_console()) as watch, job.sweeping():
        for status in job.watch():
            watch.update(status, last=status.ended)
    return status


def _stream(job: Job) -> JobStatus:
    """A line of JSON at each change."""
    status = job.status()
    before = None
    with job.sweeping():
        for status in job.watch():
            if status != before:
                print_json(job_object(status), indent=False)
            before = status
    return status


def print_status(status: JobStatus) -> None:
    """A job, for people."""
    counts = status.request_counts
    shown = ("queued", "leased", "succeeded", "failed", "cancelled", "expired")
    print_fields(
        [
            ("job", status.job),
            ("state", status.state + ("" if status.sealed else ", still being sent")),
            ("model", f"{status.model} {status.digest}".strip()),
            ("images", describe(status, 0.0)),
            ("", ", ".join(f"{counts[name]:,} {name}" for name in shown)),
            ("created", ago(status.created_ms)),
            ("expires", "" if status.ended else ago(status.expires_ms)),
            ("ended", ago(status.ended_ms)),
            (
                "recovered",
                f"{counted(status.recovered, 'chunk')} of workers that died or fell silent" if status.recovered else "",
            ),
            ("cache", f"{status.cache_hits:,} hits" if status.cache else ""),
            ("webhook", f"{status.webhook} {status.webhook_state or 'waiting'}" if status.webhook else ""),
            *((f"  {key}", value) for key, value in status.metadata.items()),
        ]
    )
