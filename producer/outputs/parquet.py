"""Parquet, with the labels of a row as a list of structs. Needs pyarrow."""

from __future__ import annotations

from collections.abc import Sequence
from typing import IO, Any

import pyarrow as pa
import pyarrow.parquet as pq

from jobs.items import Result
from producer.outputs.own import REST, own_cells

__all__ = ["SCHEMA", "ParquetWriter"]

#: Rows of one row group: some megabytes, which is what readers like and what is held in memory.
ROW_GROUP = 20_000

SCHEMA = pa.schema(
    [
        pa.field("custom_id", pa.string(), nullable=False),
        pa.field("status", pa.string(), nullable=False),
        pa.field(
            "labels",
            pa.list_(pa.struct([("label", pa.string()), ("index", pa.int32()), ("score", pa.float64())])),
        ),
        pa.field("model", pa.struct([("name", pa.string()), ("digest", pa.string())])),
        pa.field("error", pa.struct([("code", pa.string()), ("message", pa.string())])),
    ]
)


class ParquetWriter:
    """Writes row groups of :data:`ROW_GROUP` rows.

    With ``columns``, even none, the user's own fields of these names follow as text, and ``fields`` with the rest as
    JSON; none of them may be one of :data:`SCHEMA`'s.
    """

    def __init__(self, stream: IO[bytes], *, columns: Sequence[str] | None = None) -> None:
        self._columns = columns
        self._own = [] if columns is None else [*columns, REST]
        self._schema = SCHEMA
        for name in self._own:
            self._schema = self._schema.append(pa.field(name, pa.string()))
        self._writer = pq.ParquetWriter(stream, self._schema, compression="zstd")
        self._rows: list[Result] = []

    def write(self, results: list[Result]) -> None:
        """Write some results; they reach the file a row group at a time."""
        self._rows += results
        if len(self._rows) >= ROW_GROUP:
            self._flush()

    def close(self) -> None:
        """Write what is held back, and the footer."""
        self._flush()
        self._writer.close()

    def _flush(self) -> None:
        cells: dict[str, list[Any]] = {name: [getattr(r, name) for r in self._rows] for name in SCHEMA.names}
        if self._columns is not None:
            own = [own_cells(result.fields, self._columns) for result in self._rows]
            cells |= {name: [row[i] for row in own] for i, name in enumerate(self._own)}
        self._writer.write_table(pa.Table.from_pydict(cells, schema=self._schema))
        self._rows = []
