"""The contract of a writer."""

from __future__ import annotations

from typing import Protocol

from jobs.items import Result

__all__ = ["Writer"]


class Writer(Protocol):
    """Takes results in the order in which they come."""

    def write(self, results: list[Result]) -> None:
        """Write some results."""

    def close(self) -> None:
        """Complete the output; the stream is the caller's to close."""
