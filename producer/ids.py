"""Custom_ids on disk, so that memory stays constant however large the job is."""

from __future__ import annotations

import sqlite3
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from types import TracebackType

from jobs.errors import SourceError
from jobs.items import decode_chunk
from jobs.ledger import Ledger
from producer.sources import Picture, Source, located

__all__ = ["IdSet", "check_ids", "missing", "sent_ids", "temporary_database"]

#: Rows written at a time.
BATCH = 10_000
#: Repeated custom_ids that are looked at to name one with both its places.
REPEATS = 1000


def temporary_database() -> sqlite3.Connection:
    """An SQLite database without a name: in memory while it is small, on disk when not, gone with its connection."""
    db = sqlite3.connect("", isolation_level=None, check_same_thread=False)
    db.execute("PRAGMA journal_mode = OFF")
    db.execute("PRAGMA synchronous = OFF")
    db.execute("PRAGMA cache_size = -8000")
    db.execute(f"PRAGMA temp_store_directory = '{tempfile.gettempdir()}'")
    return db


class IdSet:
    """Custom_ids, in a temporary database that goes when it is closed."""

    def __init__(self) -> None:
        self._db = temporary_database()
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


def check_ids(source: Source, names: Sequence[str] = ()) -> None:
    """Nothing is sent of a source that is empty or has a custom_id twice: a :class:`SourceError` says where.

    ``names`` are what the user called it.

    A source whose ids cannot repeat is only asked for its first image. The others are gone through once, without
    reading an image; only a number for each id is kept, on disk.
    """
    if next(located(source), None) is None:
        raise SourceError(f"no images found in {', '.join(names)}" if names else "no images found")
    if source.unique:
        return
    repeated = _repeated(custom_id for custom_id, _ in located(source))
    if not repeated:
        return
    first: dict[str, str] = {}
    for custom_id, place in located(source):
        if hash(custom_id) not in repeated:
            continue
        if custom_id in first:
            raise SourceError(
                f"custom_id {custom_id[:200]!a} is there twice: {first[custom_id]} and {place}; nothing was sent"
            )
        first[custom_id] = place


def _repeated(ids: Iterable[str]) -> set[int]:
    """Hashes that come more than once; of many, the first ones."""
    db = temporary_database()
    try:
        db.execute("CREATE TABLE hashes (hash INTEGER)")
        db.execute("BEGIN")
        hashes = ((hash(custom_id),) for custom_id in ids)
        while batch := list(islice(hashes, BATCH)):
            db.executemany("INSERT INTO hashes VALUES (?)", batch)
        found = db.execute("SELECT hash FROM hashes GROUP BY hash HAVING count(*) > 1 LIMIT ?", (REPEATS,))
        return {row[0] for row in found}
    finally:
        db.close()


def sent_ids(ledger: Ledger, job: str) -> Iterator[str]:
    """Every custom_id that a job has accepted; one may come twice while workers go on."""
    for _, payload in ledger.open_payloads(job):
        yield from (item.custom_id for item in decode_chunk(payload).items)
    after = "0-0"
    while page := ledger.entries(job, after=after):
        after = page[-1].id
        for entry in page:
            yield from (item.custom_id for item in decode_chunk(entry.payload).items)


def missing(pictures: Iterable[Picture], sent: Iterable[str]) -> Iterator[Picture]:
    """The images whose custom_id was not sent."""
    with IdSet() as known:
        for custom_id in sent:
            known.add(custom_id)
        for picture in pictures:
            if picture.custom_id not in known:
                yield picture
