"""``labelmill-worker serve``: a Celery worker with our settings, started by hand."""

from __future__ import annotations

import argparse
import os

from jobs.settings import Settings
from worker.models.flags import add_card_flags, hand_on

__all__ = ["add_arguments", "run"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of ``serve``; each stands over its environment variable."""
    parser.add_argument(
        "--model", metavar="NAME_OR_FILE", help="what to serve; several: comma-separated [LABELMILL_MODEL]"
    )
    parser.add_argument("--broker", metavar="URL", help="where tickets come from [LABELMILL_BROKER_URL]")
    parser.add_argument(
        "--file-roots",
        metavar="DIR[:DIR...]",
        help="folders that may be read; none by default [LABELMILL_FILE_ROOTS]",
    )
    parser.add_argument(
        "--concurrency", type=_processes, metavar="N", help="processes (or threads); default: usable cores"
    )
    parser.add_argument("--pool", choices=("prefork", "solo", "threads"), default="prefork", help="default: prefork")
    parser.add_argument("--name", default=f"labelmill-{os.getpid()}@%h", help="Celery's node name; must be unique")
    parser.add_argument("--log-level", default="INFO", choices=("DEBUG", "INFO", "WARNING", "ERROR"))
    add_card_flags(parser)


def run(args: argparse.Namespace) -> int:
    """Serve until SIGTERM or SIGINT; returns the exit code."""
    for option, variable in (("model", "MODEL"), ("broker", "BROKER_URL"), ("file_roots", "FILE_ROOTS")):
        value = getattr(args, option)
        if value is not None:
            os.environ[f"LABELMILL_{variable}"] = value
    hand_on(args)
    _ = Settings.from_env().redis_url  # a bad value is said in one line, before Celery reads it
    from celery.bin.celery import celery

    concurrency = args.concurrency or len(os.sched_getaffinity(0))
    argv = ["--quiet", "--app=tasks", "worker", f"--pool={args.pool}", f"--concurrency={concurrency}"]
    argv += [f"--hostname={args.name}", f"--loglevel={args.log_level}", "--without-gossip", "--without-mingle"]
    return int(celery.main(args=argv, prog_name="celery", standalone_mode=False) or 0)


def _processes(text: str) -> int:
    if not text.isascii() or not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number above 0")
    return int(text)
