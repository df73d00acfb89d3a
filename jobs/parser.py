"""The parser of both command lines."""

from __future__ import annotations

import argparse
from typing import NoReturn

from jobs.errors import UsageError

__all__ = ["Parser"]


class Parser(argparse.ArgumentParser):
    """Says what is wrong in one line."""

    def error(self, message: str) -> NoReturn:
        """End the program, as argparse does after its usage of many lines."""
        self.exit(UsageError.exit_code, f"{self.prog}: {message}; see {self.prog} --help\n")
