"""The user's own fields as cells of a table."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import orjson

__all__ = ["REST", "own_cells"]

#: The column of what no column of its own was asked for, as JSON.
REST = "fields"


def own_cells(fields: dict[str, Any] | None, columns: Sequence[str]) -> list[str]:
    """One text for each column, and the rest as JSON in one more; empty where there is nothing."""
    rest = dict(fields or {})
    cells = [_text(rest.pop(name, None)) for name in columns]
    return [*cells, orjson.dumps(rest).decode() if rest else ""]


def _text(value: Any) -> str:
    if value is None:
        return ""
    return value if isinstance(value, str) else orjson.dumps(value).decode()
