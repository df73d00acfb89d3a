"""A set of custom_ids on disk, so that memory stays constant however large the job is."""

from __future__ import annotations

import sqlite3
import tempfile
from collections.abc import Iterable, Iterator
from types import TracebackType

from jobs.items import Item, decode_chunk
from jobs.ledger import Ledger

__all__ = ["IdSet", "missing", "sent_ids"]


class IdSet:
    """Custom_ids, in a temporary SQLite database that goes when it is closed."""

    def __init__(self) -> None:
        # "" is SQLite's own temporary database: on disk when it is large, without a name, gone with the connection
        self._db = sqlite3.connect("", isolation_level=None)
        self._db.execute("PRAGMA journal_mode = OFF")
        self._db.execute("PRAGMA synchronous = OFF")
        self._db.execute(f"PRAGMA temp_store_directory = '{tempfile.gettempdir()}'")
        self._db.execute("CREATE TABLE ids (id TEXT PRIMARY KEY) WITHOUT ROWID")
        self._db.execute("BEGIN")

    def add(self, custom_id: str) -> bool:
        """Put one in; False where it was there."""
        cursor = self._db.execute("INSERT OR IGNORE INTO ids VALUES (?)", (custom_id,))
        return cursor.rowcount == 1

    def __contains__(self, custom_id: str) -> bool:
        return self._db.execute("SELECT 1 FROM ids WHERE id = ?", (custom_id,)).fetchone() is not None

    def __enter__(self) -> IdSet:
        return self

    def __exit__(self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None) -> None:
        self._db.close()


def sent_ids(ledger: Ledger, job: str) -> Iterator[str]:
    """Every custom_id that a job has accepted; one may come twice while workers go on."""
    for _, payload in ledger.open_payloads(job):
        yield from (item.custom_id for item in decode_chunk(payload).items)
    after = "0-0"
    while page := ledger.entries(job, after=after):
        after = page[-1].id
        for entry in page:
            yield from (item.custom_id for item in decode_chunk(entry.payload).items)


def missing(items: Iterable[Item], sent: Iterable[str]) -> Iterator[Item]:
    """The items whose custom_id was not sent."""
    with IdSet() as known:
        for custom_id in sent:
            known.add(custom_id)
        for item in items:
            if item.custom_id not in known:
                yield item
