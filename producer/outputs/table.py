"""A table for people: file, label, score, with the failed ones and their reason."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table
from rich.text import Text

from jobs.items import Result

__all__ = ["TableWriter", "print_trimmed"]

#: Up to this many rows are held back to be sorted and measured; more are printed as they come.
SORT_LIMIT = 500


def print_trimmed(console: Console, table: Table) -> None:
    """Print a table without blanks at the ends of its lines."""
    with console.capture() as printed:
        console.print(table)
    lines = printed.get().removesuffix("\n").split("\n")  # a name may hold what str.splitlines takes for an end
    console.file.write("".join(line.rstrip(" ") + "\n" for line in lines))
    console.file.flush()


class TableWriter:
    """Prints results on a console: one row an image, its best label first, the others beside it."""

    def __init__(self, console: Console, *, top_k: int) -> None:
        self._console = console
        self._top_k = top_k
        self._rows: list[Result] = []
        self._header = True

    def write(self, results: list[Result]) -> None:
        """Take some results; from :data:`SORT_LIMIT` rows on they are printed in groups."""
        self._rows += results
        if len(self._rows) > SORT_LIMIT:
            self._print()

    def close(self) -> None:
        """Print what is held back."""
        self._print()

    def _print(self) -> None:
        if not self._rows:
            return
        table = Table(box=None, pad_edge=False, show_header=self._header, header_style="bold", expand=True)
        table.add_column("file", overflow="fold", ratio=3)
        table.add_column("label", overflow="fold", ratio=4)
        table.add_column("score", justify="right", width=6)
        if self._top_k > 1:
            table.add_column("next", style="dim", overflow="ellipsis", no_wrap=True, ratio=4)
        for result in sorted(self._rows, key=lambda result: result.custom_id):
            table.add_row(*self._cells(result))
        print_trimmed(self._console, table)
        self._rows, self._header = [], False

    def _cells(self, result: Result) -> list[Text]:
        if not result.labels:
            error = result.error or {"code": result.status, "message": ""}
            reason = Text(f"{error['code']}: {error['message']}".rstrip(": "), style="red")
            return [Text(result.custom_id), reason, Text("-", style="red")]
        best, *others = result.labels[: self._top_k]
        cells = [Text(result.custom_id), Text(best["label"]), Text(f"{best['score']:.3f}")]
        if self._top_k > 1:
            cells.append(Text(", ".join(f"{other['label']} {other['score']:.2f}" for other in others[:2])))
        return cells
