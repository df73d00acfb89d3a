"""CSV (RFC 4180): one result a row, with a column for each of the k labels and scores."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from typing import IO

from jobs.items import Result
from producer.outputs.own import REST, own_cells

__all__ = ["CsvWriter"]


class CsvWriter:
    """Columns: custom_id, status, label_1, index_1, score_1, ..., error_code, error_message, model, digest.

    With ``columns``, even none, the user's own fields of these names follow, and ``fields`` with the rest as JSON.
    ``header`` is left out where rows are appended.
    """

    def __init__(
        self, stream: IO[bytes], top_k: int, *, columns: Sequence[str] | None = None, header: bool = True
    ) -> None:
        self._text = io.TextIOWrapper(stream, encoding="utf-8", newline="", write_through=True)
        self._top_k = top_k
        self._columns = columns
        self._rows = csv.writer(self._text)
        ranks = [f"{name}_{rank}" for rank in range(1, top_k + 1) for name in ("label", "index", "score")]
        own = [] if columns is None else [*columns, REST]
        if header:
            self._rows.writerow(["custom_id", "status", *ranks, "error_code", "error_message", "model", "digest", *own])

    def write(self, results: list[Result]) -> None:
        """Write some results."""
        self._rows.writerows(map(self._row, results))

    def close(self) -> None:
        """Let go of the stream, which stays open."""
        self._text.detach()

    def _row(self, result: Result) -> list[object]:
        cells: list[object] = [result.custom_id, result.status]
        labels = (result.labels or [])[: self._top_k]
        for label in labels:
            cells += (label["label"], label["index"], label["score"])
        cells += [""] * (3 * (self._top_k - len(labels)))
        error, model = result.error or {}, result.model or {}
        return [
            *cells,
            error.get("code", ""),
            error.get("message", ""),
            model.get("name", ""),
            model.get("digest", ""),
            *([] if self._columns is None else own_cells(result.fields, self._columns)),
        ]
