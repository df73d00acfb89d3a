"""Names of uploaded files: text, never paths or HTML."""

from __future__ import annotations

from jobs.items import MAX_ID_CHARS, UNCARRIABLE

__all__ = ["clean_name"]


def clean_name(name: str, *, default: str = "image") -> str:
    """The name as it can travel: what cannot be shown is replaced, what is too long is cut. It is only ever text."""
    shown = UNCARRIABLE.sub("\N{REPLACEMENT CHARACTER}", name)[:MAX_ID_CHARS]
    return shown or default
