"""The page and what it is made of, from the package: nothing that a request names reaches the file system."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from importlib.resources import files

from flask import Blueprint, Response, request
from werkzeug.exceptions import NotFound

__all__ = ["blueprint"]

_TYPES = {
    "css": "text/css; charset=utf-8",
    "html": "text/html; charset=utf-8",
    "js": "text/javascript; charset=utf-8",
    "json": "application/json",
    "svg": "image/svg+xml",
}


@dataclass(frozen=True)
class _Page:
    """One file in memory, ready to be sent."""

    data: bytes
    content_type: str
    etag: str

    def answer(self) -> Response:
        """Sent, or said to be the same as before; asked for again each time, so that a new version is seen at once."""
        answer = Response(self.data, content_type=self.content_type)
        answer.set_etag(self.etag)
        answer.headers["Cache-Control"] = "no-cache"
        answer.make_conditional(request)
        return answer


def blueprint() -> Blueprint:
    """``/``, ``/static/NAME`` and ``/openapi.json``."""
    views = Blueprint("page", __name__)
    folder = files("producer.web")
    pages = {file.name: _page(file.name, file.read_bytes()) for file in (folder / "static").iterdir()}
    description = _page("openapi.json", (folder / "openapi.json").read_bytes())

    @views.get("/")
    def index() -> Response:
        return pages["index.html"].answer()

    @views.get("/static/<name>")
    def static(name: str) -> Response:
        if name not in pages:
            raise NotFound()
        return pages[name].answer()

    @views.get("/openapi.json")
    def openapi() -> Response:
        return description.answer()

    return views


def _page(name: str, data: bytes) -> _Page:
    return _Page(data, _TYPES[name.rpartition(".")[2]], hashlib.sha256(data).hexdigest()[:32])
