"""Results in one file, errors in another."""

from __future__ import annotations

from jobs.items import Result
from producer.outputs.contract import Writer

__all__ = ["Split"]


class Split:
    """Gives what succeeded to one writer and the rest to another; without an errors' writer, all to the first."""

    def __init__(self, results: Writer, errors: Writer | None = None) -> None:
        self.results = results
        self.errors = errors
        self.written = {"results": 0, "errors": 0}

    def write(self, results: list[Result]) -> None:
        """Write some results."""
        good = results if self.errors is None else [r for r in results if r.status == "succeeded"]
        if good:
            self.results.write(good)
        self.written["results"] += len(good)
        if self.errors is not None and len(good) < len(results):
            self.errors.write([r for r in results if r.status != "succeeded"])
            self.written["errors"] += len(results) - len(good)

    def close(self) -> None:
        """Complete both."""
        self.results.close()
        if self.errors is not None:
            self.errors.close()
