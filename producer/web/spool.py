"""Uploads on their way: received piece by piece into one temporary file, never whole in memory."""

from __future__ import annotations

import hashlib
import io
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from types import TracebackType
from typing import IO, Any, cast

from werkzeug.datastructures import Headers
from werkzeug.sansio.multipart import Data, Epilogue, Field, File, MultipartDecoder, NeedData

from producer.web.problems import Problem

__all__ = ["Part", "Slice", "Spool"]

#: Bytes read from the network at once.
PIECE = 64 << 10
#: A body up to this size stays in memory; a larger one goes to disk.
IN_MEMORY = 64 << 10
#: Longest text field of a form, and longest headers of a part, in bytes.
MAX_FIELD = 64 << 10
#: Most text fields of one form.
MAX_FIELDS = 64


@dataclass(frozen=True)
class Part:
    """One file of an upload: its field, the name its sender gave it (text, never a path), and where its bytes lie."""

    field: str
    name: str
    content_type: str
    offset: int
    size: int
    sha256: str = ""


@dataclass
class Spool:
    """A received body: its files lie one after the other in a temporary file, its text fields in memory.

    Use it as a context: the file goes with it.
    """

    folder: str | None = None
    parts: list[Part] = field(default_factory=list)
    fields: dict[str, list[str]] = field(default_factory=dict)

    def __enter__(self) -> Spool:
        self.file = cast("IO[bytes]", tempfile.SpooledTemporaryFile(max_size=IN_MEMORY, dir=self.folder or None))
        self.size = 0
        return self

    def __exit__(self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None) -> None:
        self.file.close()

    def bytes_of(self, part: Part) -> bytes:
        """All of a part, in memory."""
        self.file.seek(part.offset)
        return self.file.read(part.size)

    def open(self, part: Part) -> io.BufferedReader:
        """A part as a seekable file of its own; one at a time."""
        return io.BufferedReader(Slice(self.file, part.offset, part.size), PIECE)

    def take(self, stream: IO[bytes], *, name: str, content_type: str) -> Part:
        """Receive a whole body as one part."""
        start, digest = self.size, hashlib.sha256()
        while piece := stream.read(PIECE):
            self._write(piece)
            digest.update(piece)
        part = Part("", name, content_type, start, self.size - start, digest.hexdigest())
        self.parts.append(part)
        return part

    def take_form(
        self, stream: IO[bytes], boundary: str, *, max_files: int, file_fields: tuple[str, ...], max_file: int = 0
    ) -> None:
        """Receive a multipart form. Parts of ``file_fields`` are files, with or without a file name.

        Raises :class:`Problem` where it is none, has more than ``max_files`` files, or one larger than ``max_file``
        bytes (0: any).
        """
        form = _Form(self, max_files, file_fields, max_file)
        try:
            for event in _events(stream, boundary):
                form.take(event)
        except (ValueError, AttributeError) as exc:  # what the decoder says of a form that is none
            raise Problem(400, "bad_request", "the body is not a multipart form that can be read") from exc

    def _write(self, data: bytes) -> None:
        self.file.write(data)
        self.size += len(data)


class _Form:
    """Puts the events of a multipart decoder where they belong."""

    def __init__(self, spool: Spool, max_files: int, file_fields: tuple[str, ...], max_file: int) -> None:
        self.spool = spool
        self.max_files = max_files
        self.file_fields = file_fields
        self.max_file = max_file
        self.begun: tuple[str, str, str, int] | None = None
        self.digest = hashlib.sha256()
        self.text: tuple[str, bytearray] | None = None

    def take(self, event: Any) -> None:
        """One event of the decoder."""
        if isinstance(event, (File, Field)):
            self._begin(event)
        elif isinstance(event, Data):
            self._add(event.data)
            if not event.more_data:
                self._end()

    def _begin(self, event: File | Field) -> None:
        if not isinstance(event.name, str):
            raise Problem(400, "bad_request", "a part of the form has no name")
        if isinstance(event, File) or event.name in self.file_fields:
            if len(self.spool.parts) >= self.max_files:
                raise Problem(413, "too_many_files", f"at most {self.max_files} files in one request")
            name = getattr(event, "filename", "") or ""
            self.begun = (event.name, name, _type(event.headers), self.spool.size)
            self.digest = hashlib.sha256()
        else:
            if len(self.spool.fields) >= MAX_FIELDS:
                raise Problem(400, "bad_request", f"at most {MAX_FIELDS} fields in one form")
            self.text = (event.name, bytearray())

    def _add(self, data: bytes) -> None:
        if self.begun:
            self.spool._write(data)
            self.digest.update(data)
            if self.max_file and self.spool.size - self.begun[3] > self.max_file:
                raise Problem(413, "too_large", f"the picture is larger than {self.max_file} bytes")
        elif self.text:
            self.text[1].extend(data)
            if len(self.text[1]) > MAX_FIELD:
                raise Problem(413, "too_large", f"the field {self.text[0][:80]!a} is larger than {MAX_FIELD} bytes")

    def _end(self) -> None:
        if self.begun:
            field_name, name, content_type, offset = self.begun
            size = self.spool.size - offset
            self.spool.parts.append(Part(field_name, name, content_type, offset, size, self.digest.hexdigest()))
        elif self.text:
            self.spool.fields.setdefault(self.text[0], []).append(self.text[1].decode())
        self.begun = self.text = None


def _events(stream: IO[bytes], boundary: str) -> Iterator[Any]:
    """The decoder's events; what it holds back is bounded."""
    decoder = MultipartDecoder(boundary.encode("latin-1", "replace"))
    while True:
        piece = stream.read(PIECE)
        decoder.receive_data(piece or None)
        while not isinstance(event := decoder.next_event(), NeedData):
            yield event
            if isinstance(event, Epilogue):
                return
        if len(decoder.buffer) > 2 * PIECE:  # a boundary that never comes, headers without an end
            raise ValueError("no part begins")


def _type(headers: Headers) -> str:
    return headers.get("Content-Type", "").partition(";")[0].strip().lower()


class Slice(io.RawIOBase):
    """Part of a file as a file: readable and seekable. It shares the file's position with whoever else reads it."""

    def __init__(self, file: IO[bytes], offset: int, size: int) -> None:
        self._file = file
        self._offset = offset
        self._size = size
        self._at = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._size}[whence]
        if base + offset < 0:
            raise OSError("a position before the beginning")
        self._at = base + offset
        return self._at

    def readinto(self, buffer: Any) -> int:
        wanted = max(0, min(len(buffer), self._size - self._at))
        self._file.seek(self._offset + self._at)
        data = self._file.read(wanted)
        buffer[: len(data)] = data
        self._at += len(data)
        return len(data)
