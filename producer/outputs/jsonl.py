"""JSON Lines: one result a line."""

from __future__ import annotations

from typing import IO

import orjson

from jobs.items import Result

__all__ = ["JsonlWriter"]


class JsonlWriter:
    """Writes ``Result.as_dict()`` as one line each."""

    def __init__(self, stream: IO[bytes]) -> None:
        self._stream = stream

    def write(self, results: list[Result]) -> None:
        """Write some results."""
        self._stream.write(b"".join(orjson.dumps(r.as_dict(), option=orjson.OPT_APPEND_NEWLINE) for r in results))

    def close(self) -> None:
        """Nothing is held back."""
