"""Results in the order in which the images were submitted, sorted on disk."""

from __future__ import annotations

from collections.abc import Iterator

import orjson

from jobs.items import Result, decode_chunk
from jobs.ledger import Ledger
from jobs.patience import Patience
from producer.ids import temporary_database

__all__ = ["InputOrder"]

#: Rows written and read at a time.
BATCH = 1000


class InputOrder:
    """Takes results in any order and gives them back in that of the input; memory does not grow with them.

    Chunks are numbered in the order of the input, and halves of chunks in theirs. What was retried came back in a
    chunk of its own, and takes the place of its first result.
    """

    def __init__(self, ledger: Ledger, job: str, *, patience: Patience | None = None) -> None:
        self._ledger = ledger
        self._job = job
        self._patience = patience or Patience()
        self._db = temporary_database()
        self._db.execute("CREATE TABLE results (place TEXT, id TEXT, line BLOB)")
        self._db.execute("CREATE TABLE retried (id TEXT PRIMARY KEY, place TEXT) WITHOUT ROWID")
        self._db.execute("BEGIN")

    def write(self, results: list[Result]) -> None:
        """Take some results."""
        rows = ((_place(r.chunk, r.position), r.custom_id, orjson.dumps(r.as_dict())) for r in results)
        self._db.executemany("INSERT INTO results VALUES (?, ?, ?)", rows)

    def close(self) -> None:
        """Forget all."""
        self._db.close()

    def __iter__(self) -> Iterator[list[Result]]:
        """All of them in order, in batches."""
        self._find_places()
        self._db.execute(
            "UPDATE results SET place = (SELECT place FROM retried WHERE retried.id = results.id) WHERE place IS NULL"
        )
        rows = self._db.execute("SELECT line FROM results ORDER BY place")
        while batch := rows.fetchmany(BATCH):
            yield [Result(**orjson.loads(line)) for (line,) in batch]

    def _find_places(self) -> None:
        """Where the retried images stood in the input, by their first results."""
        for entry_id, positions in self._patience(lambda: self._ledger.superseded(self._job)).items():
            found = self._patience(lambda entry_id=entry_id: self._ledger.entry(self._job, entry_id))  # type: ignore[misc]
            items = decode_chunk(found.payload).items
            rows = [(items[p].custom_id, _place(found.chunk_id, p)) for p in positions]
            placed = [row for row in rows if row[1] is not None]
            self._db.executemany("INSERT OR IGNORE INTO retried VALUES (?, ?)", placed)


def _place(chunk: str, position: int) -> str | None:
    """A text that sorts as the input does; None for a chunk of retried images."""
    number, dot, halves = chunk.partition(".")
    return f"{int(number):012d}{dot}{halves}:{position:06d}" if number.isdigit() else None
