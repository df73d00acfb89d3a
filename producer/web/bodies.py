"""Bodies of requests: limited, spooled, and only so many large ones at once."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import orjson
from flask import request

from producer.web.guards import Slots
from producer.web.problems import Problem
from producer.web.settings import WebSettings
from producer.web.spool import IN_MEMORY, Spool

__all__ = ["Bodies"]


class Bodies:
    """Receives the body of the request at hand."""

    def __init__(self, settings: WebSettings) -> None:
        self._settings = settings
        self._slots = Slots(settings.web_uploads, "uploads")

    def picture(self, max_bytes: int) -> tuple[str, bytes, dict[str, str]]:
        """Name, bytes and text fields of a form with one ``image``. Raises :class:`Problem` where it has none."""
        with self._spool(max_bytes + (1 << 20)) as spool:
            self._take_form(spool, max_files=1, file_fields=("image",), max_file=max_bytes)
            found = next((part for part in spool.parts if part.field == "image"), None)
            if found is None:
                raise Problem(400, "image_not_found", "Image not found")
            fields = {name: values[-1] for name, values in spool.fields.items()}
            return found.name, spool.bytes_of(found), fields

    @contextmanager
    def upload(self, file_fields: tuple[str, ...]) -> Iterator[Spool]:
        """A spooled body: a form of many files, or any other body as one part."""
        with self._spool(self._settings.web_max_body) as spool:
            if request.mimetype == "multipart/form-data":
                self._take_form(spool, max_files=self._settings.web_max_files, file_fields=file_fields)
            else:
                with self._receiving():
                    spool.take(request.stream, name="", content_type=request.mimetype)
            yield spool

    def raw(self, max_bytes: int) -> bytes:
        """The body, whole, in memory. Raises :class:`Problem` where it is too large."""
        request.max_content_length = max_bytes
        with self._receiving():
            return request.stream.read()

    def json(self, *, default: Any = None) -> Any:
        """The JSON body; ``default``, where there is one, for an empty body. Raises :class:`Problem`."""
        data = self.raw(self._settings.web_max_json)
        if not data and default is not None:
            return default
        try:
            return orjson.loads(data)
        except orjson.JSONDecodeError as exc:
            raise Problem(400, "bad_json", f"the body is not JSON: {exc}") from None

    def _spool(self, max_bytes: int) -> Spool:
        request.max_content_length = max_bytes
        return Spool(self._settings.web_spool_dir)

    def _take_form(self, spool: Spool, *, max_files: int, file_fields: tuple[str, ...], max_file: int = 0) -> None:
        boundary = request.mimetype_params.get("boundary", "")
        if request.mimetype != "multipart/form-data" or not boundary:
            return
        with self._receiving():
            spool.take_form(
                request.stream,
                boundary,
                max_files=max_files,
                file_fields=file_fields,
                max_file=max_file,
            )

    @contextmanager
    def _receiving(self) -> Iterator[None]:
        """Large bodies need a slot: those who send slowly must not hold every thread."""
        length = request.content_length
        small = length is not None and length <= IN_MEMORY
        if not small:
            self._slots.take()
        try:
            yield
        except TimeoutError:
            raise Problem(408, "request_timeout", "the body came too slowly") from None
        finally:
            if not small:
                self._slots.give()
