"""Parquet, with the labels of a row as a list of structs. Needs pyarrow."""

from __future__ import annotations

from typing import IO

import pyarrow as pa
import pyarrow.parquet as pq

from jobs.items import Result

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
    """Writes row groups of :data:`ROW_GROUP` rows."""

    def __init__(self, stream: IO[bytes]) -> None:
        self._writer = pq.ParquetWriter(stream, SCHEMA, compression="zstd")
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
        columns = {name: [getattr(result, name) for result in self._rows] for name in SCHEMA.names}
        self._writer.write_table(pa.Table.from_pydict(columns, schema=SCHEMA))
        self._rows = []
