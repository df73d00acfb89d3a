"""What travels: items, chunks and results, and their form on the wire.

A chunk's payload is text of one header line and one line for each item, each a JSON value without a newline,
so that the ledger's Lua can count and halve a chunk without decoding it:

    {"base": "/data/photos", "t": 1795363991000}
    "cats/tom.jpg"                                     custom_id; the image is <base>/cats/tom.jpg
    ["7", "/data/photos/dogs/rex.jpg"]                 custom_id and reference
    ["8", "https://example.org/a.jpg", {"owner": 3}]   the same with the user's own fields

A chunk's results are one line for each item, in the same order: ``[index, score, index, score, ...]`` with scores in
units of 1 / :data:`SCORE_UNITS`, or ``["error_code", "message"]``.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple, cast

import orjson

from jobs.errors import InvalidItemError, ItemError, LabelmillError

__all__ = [
    "BROKEN",
    "MAX_ID_CHARS",
    "SCORE_UNITS",
    "UNCARRIABLE",
    "Chunk",
    "Item",
    "Outcome",
    "Result",
    "check_items",
    "decode_chunk",
    "decode_names",
    "decode_outcomes",
    "decode_refs",
    "encode_chunk",
    "encode_failure",
    "encode_success",
    "label_objects",
]

#: Scores are rounded to 1 / SCORE_UNITS, so that a retry on another batch size gives the same line.
SCORE_UNITS = 10_000
#: Longest custom_id and longest reference, in characters.
MAX_ID_CHARS = 1024
MAX_REF_CHARS = 4096

#: Begins the reference of an image that its producer could not read; the error's code follows.
BROKEN = "error:"
#: Characters that no custom_id and no reference may have.
UNCARRIABLE = re.compile(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff]")

Outcome = list[Any]


class Item(NamedTuple):
    """One image of a job. A tuple, for there are millions: a frozen dataclass takes four times as long to make.

    ``ref`` says where the image is: a path (absolute, or relative to the worker's file roots), ``http(s)://...``,
    ``blob:<sha256>`` for bytes kept in Redis, or ``error:<code>`` where its producer could not read it. ``fields``
    are the user's own and come back with the result.
    """

    custom_id: str
    ref: str
    fields: dict[str, Any] | None = None

    def checked(self) -> Item:
        """Itself; raises :class:`InvalidItemError` where an id or a reference cannot be carried."""
        for what, text, limit in (
            ("custom_id", self.custom_id, MAX_ID_CHARS),
            ("reference", self.ref, MAX_REF_CHARS),
        ):
            if not text or len(text) > limit:
                raise InvalidItemError(f"{what} must have 1 to {limit} characters, got {len(text)}")
            if UNCARRIABLE.search(text):
                raise InvalidItemError(f"{what} {text[:80]!a} has control characters")
        return self


@dataclass(frozen=True, slots=True)
class Chunk:
    """The items of one ticket. ``sent_ms`` is when the producer made it, on its own clock."""

    items: tuple[Item, ...]
    sent_ms: int = 0


class Result(NamedTuple):
    """One line of a job's results.

    ``labels`` are ``{"label", "index", "score"}`` from the most to the least likely; ``error`` is
    ``{"code", "message"}``; ``model`` is ``{"name", "digest"}``.
    """

    custom_id: str
    status: str
    labels: list[dict[str, Any]] | None = None
    model: dict[str, str] | None = None
    error: dict[str, str] | None = None
    fields: dict[str, Any] | None = None
    #: Where it stands in the job: entry of the result stream and position in it.
    entry: str = ""
    position: int = 0
    #: The chunk it was sent in.
    chunk: str = ""

    def as_dict(self) -> dict[str, Any]:
        """The form in which a result is written and shown: no key without a value."""
        line: dict[str, Any] = {"custom_id": self.custom_id, "status": self.status}
        for key in ("labels", "model", "error", "fields"):
            value = getattr(self, key)
            if value is not None:
                line[key] = value
        return line


def encode_chunk(items: Sequence[Item | str], *, base: str = "", sent_ms: int = 0) -> bytes:
    """The payload of a chunk whose items can be carried, see :func:`check_items`.

    A custom_id alone is the item whose reference is ``<base>/<custom_id>``.
    """
    begin = f"{base}/" if base else ""
    lines = [_line(item, begin) for item in items]
    header = orjson.dumps({"base": base, "t": sent_ms})
    if lines and all(isinstance(line, str) for line in lines):  # no text in JSON has '","' within
        return header + b"\n" + orjson.dumps(lines)[1:-1].replace(b'","', b'"\n"')
    return b"\n".join([header, *map(orjson.dumps, lines)])


def check_items(items: Sequence[Item | str], *, base: str = "") -> None:
    """As :meth:`Item.checked` for each of them, and much faster where nothing is wrong.

    Raises :class:`InvalidItemError` where an id or a reference cannot be carried.
    """
    ids = [item if isinstance(item, str) else item.custom_id for item in items]
    refs = [base, *(item.ref for item in items if not isinstance(item, str))]
    longest_id, longest_ref = max(map(len, ids), default=0), max(map(len, refs))
    is_sound = all(ids) and all(refs[1:]) and longest_id <= MAX_ID_CHARS and longest_ref + longest_id < MAX_REF_CHARS
    if not is_sound or not "".join(ids).isprintable() or not "".join(refs).isprintable():  # all that is UNCARRIABLE
        for item in items:
            (Item(item, f"{base}/{item}") if isinstance(item, str) else item).checked()


def _line(item: Item | str, begin: str) -> Any:
    """A bare id where the reference is ``begin + id``, else a list."""
    if isinstance(item, str):
        return item
    custom_id, ref, fields = item
    if fields is not None:
        return [custom_id, ref, fields]
    return custom_id if begin and ref == begin + custom_id else [custom_id, ref]


def decode_chunk(payload: bytes) -> Chunk:
    """The chunk of a payload; raises :class:`InvalidItemError` where it is not of the form above."""
    with _readable():
        header, lines = _parts(payload)
        base = header["base"]
        return Chunk(tuple(_item(line, base) for line in lines), int(header["t"]))


def decode_names(payload: bytes) -> list[tuple[str, dict[str, Any] | None]]:
    """``custom_id`` and ``fields`` of each item of a payload, without its reference: a fifth of :func:`decode_chunk`.

    Raises :class:`InvalidItemError` where the payload is not of the form above.
    """
    with _readable():
        _, lines = _parts(payload)
        return [(line, None) if isinstance(line, str) else (line[0], (*line, None)[2]) for line in lines]


def decode_refs(payload: bytes) -> tuple[list[str], int]:
    """``ref`` of each item of a payload, and ``sent_ms``: all that a worker needs, in a quarter of the time.

    Raises :class:`InvalidItemError` where the payload is not of the form above.
    """
    with _readable():
        header, lines = _parts(payload)
        begin = f"{header['base']}/" if header["base"] else ""
        return [begin + line if isinstance(line, str) else Item(*line).ref for line in lines], int(header["t"])


def _parts(payload: bytes) -> tuple[dict[str, Any], list[Any]]:
    """The header and the line of each item."""
    header, *lines = orjson.loads(b"[" + payload.replace(b"\n", b",") + b"]")
    return header, lines


@contextmanager
def _readable() -> Iterator[None]:
    """What is not of the form above cannot be read."""
    try:
        yield
    except (ValueError, LookupError, TypeError) as exc:
        raise InvalidItemError(f"chunk cannot be read: {type(exc).__name__}") from exc


def _item(line: Any, base: str) -> Item:
    if isinstance(line, str):
        return Item(line, f"{base}/{line}" if base else line)
    return Item(*line)


def encode_success(indices: Sequence[int], scores: Sequence[float]) -> bytes:
    """One result line: class indices and scores (0..1) from the most to the least likely."""
    flat: list[int] = []
    for index, score in zip(indices, scores, strict=True):
        flat += (index, round(score * SCORE_UNITS))
    return orjson.dumps(flat)


def encode_failure(error: LabelmillError) -> bytes:
    """One result line of an item that failed; only what the sender can mend shows its text."""
    message = error.message if isinstance(error, ItemError) else (type(error).__doc__ or "").partition("\n")[0]
    return orjson.dumps([error.code, UNCARRIABLE.sub("?", message)[:500]])


def label_objects(outcome: Outcome, labels: Sequence[str] | Mapping[int, str]) -> list[dict[str, Any]]:
    """``[index, units, ...]`` as ``[{"label", "index", "score"}, ...]``; an unknown index is its own name."""
    flat = iter(outcome)
    try:
        return [{"label": labels[index], "index": index, "score": next(flat) / SCORE_UNITS} for index in flat]
    except StopIteration:
        raise ValueError("a result line ends with an index that has no score") from None
    except IndexError:
        names = {index: labels[index] if index < len(labels) else str(index) for index in outcome[0::2]}
        return label_objects(outcome, names)


def decode_outcomes(results: bytes) -> list[Outcome]:
    """The outcomes of a chunk's result lines, in order."""
    return cast("list[Outcome]", orjson.loads(b"[" + results.replace(b"\n", b",") + b"]"))
