"""A manifest's own columns beside the results, joined by custom_id."""

from __future__ import annotations

import orjson

from jobs.items import Item, Result
from producer.ids import temporary_database
from producer.sources import Manifest

__all__ = ["Joined"]

#: Names of columns that are remembered; a list has no more.
MAX_COLUMNS = 1000


class Joined:
    """The fields of a manifest by custom_id, on disk. ``columns`` are their names, in order of appearance."""

    def __init__(self, manifest: Manifest) -> None:
        self._db = temporary_database()
        self._db.execute("CREATE TABLE fields (id TEXT PRIMARY KEY, fields BLOB) WITHOUT ROWID")
        self._db.execute("BEGIN")
        names: dict[str, None] = {}
        for item in manifest:
            self._add(item, names)
        self.columns = tuple(names)

    def __call__(self, result: Result) -> Result:
        """The result with the manifest's fields; its own, where it has some of the same names, stand over them."""
        row = self._db.execute("SELECT fields FROM fields WHERE id = ?", (result.custom_id,)).fetchone()
        if row is None:
            return result
        return result._replace(fields=orjson.loads(row[0]) | (result.fields or {}))

    def close(self) -> None:
        """Forget all."""
        self._db.close()

    def _add(self, item: Item, names: dict[str, None]) -> None:
        if item.fields:
            self._db.execute("INSERT OR REPLACE INTO fields VALUES (?, ?)", (item.custom_id, orjson.dumps(item.fields)))
            if len(names) < MAX_COLUMNS:
                names.update(dict.fromkeys(item.fields))
