"""The parser of both command lines."""

from __future__ import annotations

import argparse
from typing import NoReturn

from jobs.errors import UsageError

__all__ = ["Parser", "positive"]


class Parser(argparse.ArgumentParser):
    """Says what is wrong in one line."""

    def error(self, message: str) -> NoReturn:
        """End the program, as argparse does after its usage of many lines."""
        self.exit(UsageError.exit_code, f"{self.prog}: {message}; see {self.prog} --help\n")


def positive(text: str) -> int:
    """The type of a count on the command line: a whole number above 0."""
    if not text.isascii() or not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number above 0")
    return int(text)
