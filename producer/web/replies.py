"""Answers in JSON."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import orjson
from flask import Response

__all__ = ["json_reply"]


def json_reply(body: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """A JSON answer."""
    answer = Response(orjson.dumps(body), status, content_type="application/json")
    answer.headers.update(headers or {})
    return answer
