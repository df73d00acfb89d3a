"""Names of uploaded files: text, never paths or HTML."""

from __future__ import annotations

import re

from jobs.items import MAX_ID_CHARS

__all__ = ["clean_name"]

_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff]")


def clean_name(name: str, *, default: str = "image") -> str:
    """The name as it can travel: what cannot be shown is replaced, what is too long is cut. It is only ever text."""
    shown = _CONTROL.sub("\N{REPLACEMENT CHARACTER}", name)[:MAX_ID_CHARS]
    return shown or default
