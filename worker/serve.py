"""``labelmill-worker serve``: a Celery worker with our settings, started by hand."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from jobs.parser import positive
from jobs.settings import Settings
from worker.models.flags import add_card_flags, add_device_flag, hand_on
from worker.tuning import ensure, whole_cores

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
    parser.add_argument("--concurrency", type=positive, metavar="N", help="processes, or threads; default: as measured")
    parser.add_argument("--pool", choices=("prefork", "solo", "threads"), help="default: as measured, else prefork")
    add_device_flag(parser)
    parser.add_argument("--threads", type=positive, metavar="N", help="of one prediction [LABELMILL_THREADS]")
    parser.add_argument("--batch-size", type=positive, metavar="N", help="images at once [LABELMILL_BATCH_SIZE]")
    parser.add_argument("--name", default=f"labelmill-{os.getpid()}@%h", help="Celery's node name; must be unique")
    parser.add_argument("--log-level", default="INFO", choices=("DEBUG", "INFO", "WARNING", "ERROR"))
    add_card_flags(parser)


def run(args: argparse.Namespace) -> int:
    """Serve until SIGTERM or SIGINT; returns the exit code."""
    for option in ("model", "broker", "file_roots", "device", "threads", "batch_size"):
        value = getattr(args, option)
        if value is not None:
            variable = "BROKER_URL" if option == "broker" else option.upper()
            os.environ[f"LABELMILL_{variable}"] = str(value)
    settings = Settings.from_env()
    hand_on(args, settings.models)
    _ = settings.redis_url  # a bad value is said in one line, before Celery reads it
    pool, concurrency, threads = _setting(args, settings)
    os.environ["LABELMILL_THREADS"] = str(threads)
    from celery.bin.celery import celery

    argv = ["--quiet", "--app=tasks", "worker", f"--pool={pool}", f"--concurrency={concurrency}"]
    argv += [f"--hostname={args.name}", f"--loglevel={args.log_level}", "--without-gossip", "--without-mingle"]
    return int(celery.main(args=argv, prog_name="celery", standalone_mode=False) or 0)


def _setting(args: argparse.Namespace, settings: Settings) -> tuple[str, int, int]:
    """Pool, concurrency and threads: as told, else as measured, else one process a core with one thread each.

    Where only threads are told, there are as many processes as leave each of them its cores.
    """
    usual = ("prefork", max(1, whole_cores() // (settings.threads or 1)), 1)
    is_told = args.pool or args.concurrency or settings.threads
    plan = None
    if settings.tune == "auto" and not (is_told and settings.batch_size):
        model_dir = Path(settings.model_dir) if settings.model_dir else None
        plan = ensure(settings.models[0], model_dir=model_dir, device=settings.device, say=_say)
    if plan and not is_told:
        return plan.best.pool, plan.best.streams, plan.best.threads
    return args.pool or usual[0], args.concurrency or usual[1], settings.threads or usual[2]


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
