"""Times as they are shown: RFC 3339, in UTC."""

from __future__ import annotations

from datetime import UTC, datetime

__all__ = ["iso"]


def iso(ms: int) -> str | None:
    """Milliseconds since the epoch as ``2026-11-22T16:03:00.123Z``; None for 0, which means that there is none."""
    if not ms:
        return None
    return datetime.fromtimestamp(ms / 1000, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
