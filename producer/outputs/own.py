"""The user's own fields as cells of a table."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Any

import orjson

from jobs.errors import UsageError

__all__ = ["REST", "free_columns", "named_columns", "own_cells"]

#: The column of what no column of its own was asked for, as JSON.
REST = "fields"
#: Columns that tables have of themselves.
_TAKEN = re.compile(
    r"custom_id|status|labels|model|digest|error|error_code|error_message|fields|(label|index|score)_\d+"
)


def free_columns(names: Iterable[str]) -> tuple[str, ...]:
    """Those that can be columns of their own, each once; what cannot is in :data:`REST` all the same."""
    return tuple(dict.fromkeys(name for name in names if not _TAKEN.fullmatch(name)))


def named_columns(text: str) -> tuple[str, ...]:
    """The columns of ``a,b``; raises :class:`UsageError` for one that every table has."""
    names = [name.strip() for name in text.split(",") if name.strip()]
    taken = next(filter(_TAKEN.fullmatch, names), None)
    if taken is not None:
        raise UsageError(f"--columns: every table has {taken!r} already; your own field of that name is in {REST!r}")
    return free_columns(names)


def own_cells(fields: dict[str, Any] | None, columns: Sequence[str]) -> list[str]:
    """One text for each column, and the rest as JSON in one more; empty where there is nothing."""
    rest = dict(fields or {})
    cells = [_text(rest.pop(name, None)) for name in columns]
    return [*cells, orjson.dumps(rest).decode() if rest else ""]


def _text(value: Any) -> str:
    if value is None:
        return ""
    return value if isinstance(value, str) else orjson.dumps(value).decode()
