"""Options that several commands have, and how their values are read."""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable

from jobs.errors import SenderError
from jobs.ledger import check_job_id
from jobs.webhooks import check_webhook
from producer.client import Labelmill

__all__ = [
    "add_broker",
    "add_job",
    "add_json",
    "connect",
    "duration",
    "examples",
    "job_id",
    "pair",
    "webhook",
]

_DURATION = re.compile(r"(\d+(?:\.\d+)?)\s*([smhdw]?)")
_SECONDS = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800}


def add_broker(parser: argparse.ArgumentParser) -> None:
    """``--broker``."""
    parser.add_argument(
        "--broker", metavar="URL", help="the Redis with the workers [LABELMILL_BROKER_URL]; default: 127.0.0.1:6379"
    )


def add_json(parser: argparse.ArgumentParser, what: str = "print JSON, for scripts") -> None:
    """``--json``."""
    parser.add_argument("--json", action="store_true", help=what)


def add_job(parser: argparse.ArgumentParser) -> None:
    """The job that a command is about, ``--broker`` and ``--json``."""
    parser.add_argument("job", metavar="JOB", help="the id that submit printed")
    add_broker(parser)
    add_json(parser)


def examples(parser: argparse.ArgumentParser, *lines: str) -> None:
    """Show examples at the end of the help."""
    parser.epilog = "examples:\n" + "\n".join(f"  {line}" for line in lines)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter


def connect(args: argparse.Namespace, say: Callable[[str], None] | None = None) -> Labelmill:
    """The client that a command speaks through."""
    return Labelmill(args.broker, say=say)


def duration(text: str) -> float:
    """Seconds of ``90``, ``90s``, ``15m``, ``24h``, ``7d`` or ``2w``."""
    match = _DURATION.fullmatch(text.strip().lower())
    seconds = float(match[1]) * _SECONDS[match[2]] if match else 0.0
    if seconds <= 0:
        raise argparse.ArgumentTypeError(f"{text!r} is no time such as 90s, 15m, 24h or 7d")
    return seconds


def job_id(text: str) -> str:
    """What can be a job's id."""
    return _checked(check_job_id, text)


def webhook(text: str) -> str:
    """What can be called at a job's end."""
    return _checked(check_webhook, text)


def pair(text: str) -> tuple[str, str]:
    """``key=value``."""
    key, equals, value = text.partition("=")
    if not key or not equals:
        raise argparse.ArgumentTypeError(f"{text!r} is not of the form key=value")
    return key, value


def _checked(check: Callable[[str], str], text: str) -> str:
    try:
        return check(text)
    except SenderError as exc:
        raise argparse.ArgumentTypeError(exc.message) from None
