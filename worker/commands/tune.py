"""``labelmill-worker tune``: measure the best pool, streams, threads and batch size here, and keep them."""

from __future__ import annotations

import argparse
from dataclasses import asdict

import orjson

from worker.models import loader
from worker.models.device import asked_for
from worker.models.flags import add_card_flags, add_device_flag, hand_on
from worker.tuning import keep, plan_file, whole_cores

__all__ = ["EPILOG", "add_arguments", "run"]

EPILOG = """examples:
  labelmill-worker tune efficientnet-lite0

serve does this once for each model, machine and device, and reads what was kept from then on; --concurrency, --pool,
--threads and --batch-size stand over it, and LABELMILL_TUNE=off leaves it out
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's arguments."""
    parser.add_argument("file", metavar="FILE", help="a model file, or the name of one in the model folder")
    parser.add_argument("--json", action="store_true", help="one JSON document")
    add_device_flag(parser)
    add_card_flags(parser)


def run(args: argparse.Namespace) -> int:
    """Measure, keep and print."""
    hand_on(args, [args.file])
    from worker.trials import make_plan

    _, digest = loader.identify(args.file)
    device = asked_for(args.device)
    plan = make_plan(args.file, whole_cores(), device)
    is_kept = keep(digest, plan, device)
    if args.json:
        print(orjson.dumps(asdict(plan)).decode())
        return 0
    for line in plan.table():
        print(line)
    print(f"kept in {plan_file(digest, device)}" if is_kept else "not kept: the cache folder cannot be written")
    return 0
