"""Class names: a list, ``{"0": "tench"}``, ``{"0": ["n01440764", "tench"]}``, or a line each."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from jobs.errors import ModelCardError

__all__ = ["parse_labels", "read_labels"]


def parse_labels(raw: Any) -> tuple[str, ...]:
    """Labels in the order of the model's outputs.

    ``raw`` is a list of names, or a mapping of every index from 0 on to a name, or to a list of which the
    last is the name (ImageNet's ``{"0": ["n01440764", "tench"]}``).
    Raises :class:`~jobs.errors.ModelCardError` where an index is missing or a name is no text.
    """
    if isinstance(raw, dict):
        raw = _in_order(raw)
    if not isinstance(raw, list) or not raw:
        raise ModelCardError('labels must be a list, {"0": "tench"} or {"0": ["n01440764", "tench"]}')
    return tuple(_name(index, entry) for index, entry in enumerate(raw))


def read_labels(path: Path) -> tuple[str, ...]:
    """Labels of a JSON file, or of a text file with one name a line."""
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as exc:
        raise ModelCardError(f"labels cannot be read: {path}: {exc.strerror}") from exc
    except UnicodeDecodeError as exc:
        raise ModelCardError(f"labels cannot be read: {path} is no UTF-8 text") from exc
    if text.lstrip()[:1] not in ("{", "["):
        return parse_labels([line.strip() for line in text.splitlines() if line.strip()])
    try:
        return parse_labels(json.loads(text))
    except json.JSONDecodeError as exc:
        raise ModelCardError(f"labels cannot be read: {path}: {exc}") from exc


def _in_order(raw: dict[str, Any]) -> list[Any]:
    try:
        return [raw[str(index)] for index in range(len(raw))]
    except KeyError as exc:
        raise ModelCardError(
            f"labels: no entry for index {exc.args[0]} among {len(raw)}; keys must be 0 to {len(raw) - 1}"
        ) from exc


def _name(index: int, entry: Any) -> str:
    name = entry[-1] if isinstance(entry, list) and entry else entry
    if not isinstance(name, str):
        raise ModelCardError(f"labels: entry {index} is {entry!r}, not a name")
    return name
