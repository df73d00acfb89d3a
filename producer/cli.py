"""``labelmill``: classify images in bulk.

Exit codes: 0 done; 2 wrong command line; 3 nothing to read; 4 some items failed (--strict); 5 no Redis; 6 no worker
serves the model; 7 no such job, or not in a state for this; 8 the books do not balance (audit); 9 something is wrong
(doctor); 10 to 29 what is wrong with the model; 70 ours; 130 interrupted.
"""

from __future__ import annotations

import argparse
import importlib
import os
import sys
from collections.abc import Sequence
from typing import NoReturn

from jobs.errors import LabelmillError
from jobs.parser import Parser
from producer.interrupts import by_interruption, handled

__all__ = ["build_parser", "entry", "main"]

#: Commands live in modules of their own, each with ``add_arguments(parser)`` and ``run(args) -> int``.
COMMANDS = {
    "classify": ("producer.commands.classify", "classify files and folders, and print or write their labels"),
    "submit": ("producer.commands.submit", "send images to the workers as a job, and print the job's id"),
    "status": ("producer.commands.status", "show how far a job is"),
    "jobs": ("producer.commands.jobs", "list the jobs"),
    "results": ("producer.commands.results", "write the labels of a job into a file"),
    "cancel": ("producer.commands.cancel", "stop what no worker holds yet"),
    "retry": ("producer.commands.retry", "run the failed images of a job again"),
    "audit": ("producer.commands.audit", "prove that the books of a job add up"),
    "delete": ("producer.commands.delete", "forget jobs with all they hold"),
    "dead-letters": ("producer.commands.dead_letters", "images that ended their workers: list, show, replay, drop"),
    "models": ("producer.commands.models", "list the models that are served"),
    "workers": ("producer.commands.workers", "list the workers"),
    "doctor": ("producer.commands.doctor", "find what is set up badly, and say what to do"),
    "gateway": ("producer.commands.gateway", "serve over HTTP, with a page to upload pictures and watch jobs"),
}
EXAMPLES = """examples:
  labelmill classify photos/
  labelmill classify photos/ --format jsonl --output labels.jsonl
  LABELMILL_BROKER_URL=redis://127.0.0.1:6379/0 labelmill classify photos/ --model my-model
  labelmill submit photos/ --job-id tuesday --detach
  labelmill results tuesday --follow --output labels.jsonl --errors errors.jsonl
"""


def build_parser(command: str | None = None) -> argparse.ArgumentParser:
    """The parser; only ``command``, where it is given, gets its arguments."""
    parser = Parser(
        prog="labelmill",
        description="Classify images in bulk, on a queue that loses nothing.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, (module, summary) in COMMANDS.items():
        child = commands.add_parser(name, help=summary, description=summary[0].upper() + summary[1:] + ".")
        if name == command:
            importlib.import_module(module).add_arguments(child)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; an error of ours is one line on stderr and its exit code."""
    try:
        with handled():
            return _run(list(sys.argv[1:] if argv is None else argv))
    except LabelmillError as error:
        print(f"labelmill: {error.message}", file=sys.stderr)
        return error.exit_code
    except BrokenPipeError:  # the reader of our output has gone: nobody is left to write for
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except OSError as error:
        print(f"labelmill: {error}", file=sys.stderr)
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # what is held back cannot be written either
        return 74  # EX_IOERR: a full disk, a file that may not be read
    except (Exception, KeyboardInterrupt) as error:
        if not by_interruption(error):
            raise
        print("labelmill: interrupted", file=sys.stderr)
        return 130


def _run(arguments: list[str]) -> int:
    command = next((argument for argument in arguments if argument in COMMANDS), None)
    args = build_parser(command).parse_args(arguments)
    return int(importlib.import_module(COMMANDS[args.command][0]).run(args))


def entry() -> NoReturn:
    """The console script."""
    sys.exit(main())
