"""``labelmill doctor``: find what bites people, and say what to do."""

from __future__ import annotations

import argparse
from dataclasses import asdict, replace

from jobs.settings import Settings
from jobs.wording import counted
from producer.commands.display import print_json
from producer.commands.options import add_broker, add_json, examples

__all__ = ["add_arguments", "run"]

#: Exit code where an error was found; with --strict a warning is enough.
EXIT_UNWELL = 9


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of ``doctor``."""
    add_broker(parser)
    add_json(parser)
    parser.add_argument("--strict", action="store_true", help="a warning is an error")
    examples(parser, "labelmill doctor", "labelmill doctor --json")


def run(args: argparse.Namespace) -> int:
    """Examine this machine and its Redis; print what is wrong."""
    from producer.doctor.examine import CHECKS, admit, examine

    settings = Settings.from_env()
    found = examine(admit(replace(settings, broker_url=args.broker) if args.broker else settings))
    if args.json:
        print_json([asdict(finding) for finding in found])
    else:
        for finding in found:
            print(f"{finding.severity.upper()} {finding.code}: {finding.what}\n    {finding.remedy}")
        print(f"{counted(len(found), 'finding')} of {counted(len(CHECKS), 'check')}")
    return EXIT_UNWELL if any(args.strict or finding.severity == "error" for finding in found) else 0
