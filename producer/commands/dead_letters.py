"""``labelmill dead-letters``: images that were given up because their worker died with them each time."""

from __future__ import annotations

import argparse
from typing import Any

from jobs.errors import UsageError
from jobs.records import DeadLetter
from producer.commands.display import ago, print_fields, print_json, print_table, time_of
from producer.commands.options import add_job, connect, examples
from producer.job import Job

__all__ = ["add_arguments", "run"]

ACTIONS = ("list", "show", "replay", "drop")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of ``dead-letters``."""
    parser.add_argument("action", choices=ACTIONS, metavar="ACTION", help=f"what to do: {', '.join(ACTIONS)}")
    add_job(parser)
    parser.add_argument("entries", nargs="*", default=[], metavar="ENTRY", help="which of them, as list shows them")
    parser.add_argument("--all", action="store_true", help="replay or drop all of the job's")
    examples(
        parser,
        "labelmill dead-letters list job-1f2e",
        "labelmill dead-letters show job-1f2e 1795363991000-0",
        "labelmill dead-letters replay job-1f2e --all",
    )


def run(args: argparse.Namespace) -> int:
    """List them, or do something with them."""
    job = connect(args).job(args.job)
    letters = job.dead_letters()
    if args.action == "list":
        return _list(letters, args.json)
    chosen = letters if args.all else [_find(letters, job, entry) for entry in args.entries]
    if not args.entries and not args.all:
        raise UsageError(f"dead-letters {args.action}: name the entries, or --all")
    return _show(chosen, args.json) if args.action == "show" else _act(job, args.action, chosen, args.json)


def _list(letters: list[DeadLetter], json: bool) -> int:
    if json:
        print_json([_object(letter) for letter in letters])
    else:
        rows = [(x.entry, x.item.custom_id, x.code, x.deliveries, ago(x.at_ms)) for x in letters]
        print_table(("entry", "custom_id", "code", "deliveries", "since"), rows, numbers=("deliveries",))
    return 0


def _show(letters: list[DeadLetter], json: bool) -> int:
    if json:
        print_json([_object(letter) for letter in letters])
        return 0
    for letter in letters:
        print_fields(_object(letter).items())
    return 0


def _act(job: Job, action: str, letters: list[DeadLetter], json: bool) -> int:
    done = [x.entry for x in letters if (job.replay(x.entry) if action == "replay" else job.drop(x.entry))]
    past = "replayed" if action == "replay" else "dropped"
    if json:
        print_json({"id": job.id, past: done})
    else:
        print(f"job {job.id}: {len(done)} {past}")
    return 0


def _find(letters: list[DeadLetter], job: Job, entry: str) -> DeadLetter:
    for letter in letters:
        if letter.entry == entry:
            return letter
    raise UsageError(f"job {job.id} has no dead letter {entry}; see: labelmill dead-letters list {job.id}")


def _object(letter: DeadLetter) -> dict[str, Any]:
    return {
        "entry": letter.entry,
        "custom_id": letter.item.custom_id,
        "reference": letter.item.ref,
        "code": letter.code,
        "message": letter.message,
        "deliveries": letter.deliveries,
        "at": time_of(letter.at_ms),
    }
