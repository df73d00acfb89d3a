"""What an ONNX file says of itself, read without onnx, onnxruntime or the graph.

A ``ModelProto`` is a row of protobuf fields; this walks over them, and over the graph's without reading its weights,
so that the card of a file of gigabytes is read in milliseconds.
Source of the numbers: onnx.proto3 (ModelProto, GraphProto, TensorProto, OperatorSetIdProto, StringStringEntryProto).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import BinaryIO

from jobs.errors import ModelCorruptError

__all__ = ["OnnxHeader", "read_onnx_header"]

# Field numbers of ModelProto.
_IR_VERSION, _PRODUCER, _GRAPH, _OPSET_IMPORT, _METADATA = 1, 2, 7, 8, 14
# Of GraphProto and TensorProto, and the data location that means another file.
_INITIALIZER, _DATA_LOCATION, _EXTERNAL = 5, 14, 1
# Wire types of protobuf.
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5

#: A field other than the graph that is longer than this (bytes) is skipped as well.
MAX_FIELD_BYTES = 64 * 2**20


@dataclass(frozen=True)
class OnnxHeader:
    """``opsets`` maps a domain ("" is the standard one) to its version.

    ``external`` is True where a weight of the graph is kept in another file.
    """

    ir_version: int
    opsets: dict[str, int]
    producer: str
    metadata: dict[str, str]
    external: bool = False


def read_onnx_header(path: Path) -> OnnxHeader:
    """The header; raises :class:`~jobs.errors.ModelCorruptError` where the file is no whole ONNX file."""
    try:
        with path.open("rb") as file:
            return _header(file, path.stat().st_size)
    except (ValueError, UnicodeDecodeError) as exc:
        raise ModelCorruptError(f"{path}: no whole ONNX file ({exc}); export it or copy it again") from exc


def _header(file: BinaryIO, size: int) -> OnnxHeader:
    ir_version, producer, graphs, external = 0, "", 0, False
    opsets: dict[str, int] = {}
    metadata: dict[str, str] = {}
    for number, value in _fields(file, size):
        if number == _IR_VERSION and isinstance(value, int):
            ir_version = value
        elif number == _GRAPH:
            graphs += 1
            external = external or bool(value)
        elif isinstance(value, bytes):
            if number == _PRODUCER:
                producer = value.decode()
            elif number == _OPSET_IMPORT:
                domain, version = _opset(value)
                opsets[domain] = version
            elif number == _METADATA:
                key, text = _entry(value)
                metadata[key] = text
    if not graphs or not ir_version:
        raise ValueError("it has no graph")
    return OnnxHeader(ir_version, opsets, producer, metadata, external)


def _fields(file: BinaryIO, size: int) -> Iterator[tuple[int, int | bytes | None]]:
    """Number and value of each field; ``None`` for those that are skipped."""
    while file.tell() < size:
        number, wire = divmod(_varint(file), 8)
        if wire == _VARINT:
            yield number, _varint(file)
        elif wire == _BYTES:
            length = _varint(file)
            if length > size - file.tell():
                raise ValueError("it is cut short")
            if number == _GRAPH:
                yield number, int(_is_external(file, file.tell() + length))
            elif length > MAX_FIELD_BYTES:
                file.seek(length, 1)
                yield number, None
            else:
                yield number, file.read(length)
        elif wire in (_FIXED32, _FIXED64):
            file.seek(4 if wire == _FIXED32 else 8, 1)
        else:
            raise ValueError("it is not in protobuf form")


def _is_external(file: BinaryIO, end: int) -> bool:
    """Walk over the graph that ends at ``end``: whether a weight of it says that its data are elsewhere."""
    found = False
    for number, stop in _places(file, end):
        if number == _INITIALIZER:
            for part, _ in _places(file, stop):
                found = (part == _DATA_LOCATION and _varint(file) == _EXTERNAL) or found
    return found


def _places(file: BinaryIO, end: int) -> Iterator[tuple[int, int]]:
    """Number and end of each field of a message; the file stands at the field's value, and goes on behind it."""
    while file.tell() < end:
        number, wire = divmod(_varint(file), 8)
        if wire == _VARINT:
            start = file.tell()
            _varint(file)
            stop = file.tell()
            file.seek(start)
        elif wire == _BYTES:
            length = _varint(file)
            stop = file.tell() + length
        elif wire in (_FIXED32, _FIXED64):
            stop = file.tell() + (4 if wire == _FIXED32 else 8)
        else:
            raise ValueError("it is not in protobuf form")
        if stop > end:
            raise ValueError("it is cut short")
        yield number, stop
        file.seek(stop)


def _varint(file: BinaryIO) -> int:
    value = 0
    for shift in range(0, 64, 7):
        byte = file.read(1)
        if not byte:
            raise ValueError("it is cut short")
        value |= (byte[0] & 0x7F) << shift
        if byte[0] < 0x80:
            return value
    raise ValueError("it is not in protobuf form")


def _parts(data: bytes) -> dict[int, int | bytes | None]:
    return dict(_fields(BytesIO(data), len(data)))


def _opset(data: bytes) -> tuple[str, int]:
    parts = _parts(data)
    domain, version = parts.get(1, b""), parts.get(2, 0)
    if not isinstance(domain, bytes) or not isinstance(version, int):
        raise ValueError("it is not in protobuf form")
    return domain.decode(), version


def _entry(data: bytes) -> tuple[str, str]:
    parts = _parts(data)
    key, text = parts.get(1, b""), parts.get(2, b"")
    if not isinstance(key, bytes) or not isinstance(text, bytes):
        raise ValueError("it is not in protobuf form")
    return key.decode(), text.decode()
