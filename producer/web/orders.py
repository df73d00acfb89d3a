"""What a ``POST /v1/jobs`` asks for: from a received body to a source of images and the job's options.

Images come as files of a form, in archives, or as URLs in JSON or JSON Lines. Files travel by value, as blobs; URLs go
by reference, and workers fetch only from the hosts that their operator allows.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import IO, Any, cast

import orjson

from jobs.errors import SourceError
from jobs.items import MAX_REF_CHARS, Item
from jobs.records import is_digest
from producer.ids import check_ids
from producer.sources import Archive, Chain, Manifest, Picture, Source, Upload, located
from producer.sources.contract import is_carriable
from producer.web.names import clean_name
from producer.web.predict import MAX_TOP_K
from producer.web.problems import Problem
from producer.web.spool import Part, Spool

__all__ = ["Order", "check", "from_form", "from_json", "from_whole", "order"]

#: The types of bodies that are one archive, and that are a list of URLs.
ARCHIVE_TYPES = ("application/zip", "application/x-zip-compressed", "application/x-tar", "application/gzip")
LIST_TYPES = ("application/x-ndjson", "application/jsonl", "application/jsonlines")
#: A job's own notes: how many, and how long each may be.
MAX_METADATA, MAX_METADATA_CHARS = 16, 512
#: The longest that a job may wait, in seconds.
MAX_EXPIRES_S = 30 * 86_400
#: Most images of one request.
MAX_ITEMS = 100_000

_ARCHIVE_NAME = re.compile(r"\.(zip|tar|tgz|tar\.gz|tar\.bz2|tar\.xz)$", re.IGNORECASE)
_URL = re.compile(r"https?://[^\s/?#][^\s]*", re.IGNORECASE)
_OPTIONS = {"model", "top_k", "digest", "expires_s", "metadata"}


@dataclass(frozen=True)
class Order:
    """A job to be made. ``fingerprint`` tells two requests of the same content from two of different ones."""

    source: Source
    model: str | None = None
    top_k: int = 5
    digest: str = ""
    expires_s: float | None = None
    metadata: Mapping[str, str] = field(default_factory=dict)
    fingerprint: str = ""


def order(source: Source, options: Mapping[str, Any], content: Sequence[str]) -> Order:
    """An order with its options checked. Raises :class:`Problem`."""
    unknown = set(options) - _OPTIONS
    if unknown:
        raise Problem(422, "bad_option", f"there is no option {sorted(unknown)[0][:80]!a}")
    for name, value in options.items():
        if value is None:
            raise Problem(422, "bad_option", f"{name} must not be null: leave it out")
    checked: dict[str, Any] = {
        "model": _text(options, "model"),
        "top_k": _number(options, "top_k", 5, MAX_TOP_K),
        "digest": _text(options, "digest") or "",
        "expires_s": _number(options, "expires_s", None, MAX_EXPIRES_S),
        "metadata": _metadata(options.get("metadata")),
    }
    if checked["digest"] and not is_digest(checked["digest"]):
        raise Problem(422, "bad_option", "digest must be sha256: and 64 hexadecimal digits")
    print_of = hashlib.sha256(orjson.dumps([checked, list(content)], option=orjson.OPT_SORT_KEYS))
    return Order(source, fingerprint=print_of.hexdigest(), **checked)


def from_form(spool: Spool, query: Mapping[str, str], *, max_bytes: int) -> Order:
    """The files of a form; an archive among them stands for the images in it."""
    if not spool.parts:
        raise Problem(422, "no_images", "send images as 'files'")
    sources: list[Source] = []
    for part in spool.parts:
        if _is_archive(part):
            prefix = "" if len(spool.parts) == 1 else f"{clean_name(part.name)}/"
            sources.append(_archive(spool, part, clean_name(part.name), prefix, max_bytes))
            continue
        if part.size > max_bytes:
            raise Problem(413, "too_large", f"{clean_name(part.name)[:200]!r} is larger than {max_bytes} bytes")
        if sources and isinstance(sources[-1], _Files):
            sources[-1].parts.append(part)
        else:
            sources.append(_Files(spool, [part]))
    fields = {name: values[-1] for name, values in spool.fields.items()}
    content = [f"{part.field} {part.name} {part.sha256}" for part in spool.parts]
    return order(_one(sources), _merged(query, fields), content)


def from_whole(spool: Spool, part: Part, query: Mapping[str, str], *, max_bytes: int) -> Order:
    """A body that is one archive, or a list of URLs."""
    if part.content_type in ARCHIVE_TYPES:
        source: Source = _archive(spool, part, "the archive", "", max_bytes)
    elif part.content_type in LIST_TYPES:
        source = _Listed(spool, part)
    else:
        known = ", ".join(("multipart/form-data", "application/json", *LIST_TYPES[:1], *ARCHIVE_TYPES[:1]))
        raise Problem(415, "unsupported_media_type", f"send one of {known}")
    return order(source, query, [part.content_type, part.sha256])


def from_json(body: Any, query: Mapping[str, str]) -> Order:
    """A list of URLs in JSON: ``{"items": [{"url": ..., "custom_id": ...}], "model": ...}``."""
    if not isinstance(body, dict):
        raise Problem(422, "bad_request", "the body must be an object")
    items = body.get("items")
    if not isinstance(items, list) or not 1 <= len(items) <= MAX_ITEMS:
        raise Problem(422, "no_images", f"items must be a list of 1 to {MAX_ITEMS} objects with a url")
    checked = [_item(item, number) for number, item in enumerate(items, start=1)]
    options = {name: value for name, value in body.items() if name != "items"}
    content = [hashlib.sha256(orjson.dumps(items, option=orjson.OPT_SORT_KEYS)).hexdigest()]
    return order(_Urls(checked), _merged(query, options), content)


def check(source: Source) -> None:
    """Raises :class:`Problem` where a source has no image, too many, or a custom_id twice; then with both places."""
    try:
        check_ids(source)
    except SourceError as exc:
        raise Problem(422, exc.code, exc.message.removesuffix("; nothing was sent")) from None
    if sum(1 for _ in islice(located(source), MAX_ITEMS + 1)) > MAX_ITEMS:
        raise Problem(413, "too_many_images", f"at most {MAX_ITEMS} images in one request")


class _Files:
    """The files of a form, by value."""

    base = ""
    unique = False

    def __init__(self, spool: Spool, parts: list[Part]) -> None:
        self.spool = spool
        self.parts = parts

    def ids(self) -> Iterator[tuple[str, str]]:
        """Each custom_id with the number of its file."""
        for number, part in enumerate(self.parts, start=1):
            yield clean_name(part.name, default=f"image-{number}"), f"file {number}"

    def __iter__(self) -> Iterator[Picture]:
        for (custom_id, _), part in zip(self.ids(), self.parts, strict=True):
            yield Upload(custom_id, self.spool.bytes_of(part))


class _Urls:
    """Images by URL."""

    base = ""
    unique = False

    def __init__(self, items: Sequence[Item]) -> None:
        self.items = items

    def ids(self) -> Iterator[tuple[str, str]]:
        """Each custom_id with the number of its item."""
        yield from ((item.custom_id, f"item {number}") for number, item in enumerate(self.items, start=1))

    def __iter__(self) -> Iterator[Item]:
        return iter(self.items)


class _Listed:
    """URLs in JSON Lines, read from the spool as they are needed. Raises :class:`Problem` at the first bad line."""

    base = ""
    unique = False

    def __init__(self, spool: Spool, part: Part) -> None:
        self._list = Manifest(
            "line", format="jsonl", on_bad=_refuse, open_=lambda: cast("IO[bytes]", spool.open(part)), folder=""
        )

    def ids(self) -> Iterator[tuple[str, str]]:
        """Each custom_id with its line."""
        for custom_id, place in self._list.ids():
            yield custom_id, place.replace(":", " ")

    def __iter__(self) -> Iterator[Item]:
        for item in self._list:
            if not _URL.fullmatch(item.ref):
                raise Problem(422, "bad_item", f"{item.custom_id[:200]!r} has no url of http or https")
            yield item


def _refuse(place: str, reason: str) -> None:
    raise Problem(422, "bad_item", f"{place.replace(':', ' ')} {reason}")


def _item(item: Any, number: int) -> Item:
    if not isinstance(item, dict) or not isinstance(item.get("url"), str):
        raise Problem(422, "bad_item", f"item {number} must be an object with a url")
    url = item["url"]
    custom_id = item.get("custom_id", url)
    if not _URL.fullmatch(url) or len(url) > MAX_REF_CHARS:
        raise Problem(422, "bad_item", f"item {number} must have a url of http or https")
    if not isinstance(custom_id, str) or not is_carriable(custom_id):
        raise Problem(422, "bad_item", f"item {number} has a custom_id that is too long or has control characters")
    return Item(custom_id, url, {k: v for k, v in item.items() if k not in ("url", "custom_id")} or None)


def _is_archive(part: Part) -> bool:
    return part.content_type in ARCHIVE_TYPES or bool(_ARCHIVE_NAME.search(part.name))


def _archive(spool: Spool, part: Part, name: str, prefix: str, max_bytes: int) -> Source:
    return Archive(name, prefix=prefix, max_bytes=max_bytes, open_=lambda: cast("IO[bytes]", spool.open(part)))


def _merged(query: Mapping[str, Any], body: Mapping[str, Any]) -> dict[str, Any]:
    for name in query.keys() & body.keys():
        raise Problem(422, "bad_option", f"{name} is in the query and in the body")
    return {**query, **body}


def _one(sources: list[Source]) -> Source:
    return sources[0] if len(sources) == 1 else Chain(sources)


def _text(options: Mapping[str, Any], name: str) -> str | None:
    value = options.get(name)
    if value is not None and (not isinstance(value, str) or not value):
        raise Problem(422, "bad_option", f"{name} must be text")
    return value


def _number(options: Mapping[str, Any], name: str, default: int | None, most: int) -> int | None:
    value = options.get(name)
    if value is None:
        return default
    if isinstance(value, str) and value.isascii() and value.isdigit():
        value = int(value[:20])
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= most:
        raise Problem(422, "bad_option", f"{name} must be 1 to {most}")
    return value


def _metadata(value: Any) -> dict[str, str]:
    if value is None:
        return {}
    if isinstance(value, str):
        try:
            value = orjson.loads(value)
        except orjson.JSONDecodeError:
            raise Problem(422, "bad_option", "metadata must be a JSON object") from None
    if not isinstance(value, dict) or len(value) > MAX_METADATA:
        raise Problem(422, "bad_option", f"metadata must be an object of at most {MAX_METADATA} texts")
    for name, text in value.items():
        if not isinstance(text, str) or len(text) > MAX_METADATA_CHARS or len(name) > MAX_METADATA_CHARS:
            raise Problem(422, "bad_option", f"metadata must be texts of at most {MAX_METADATA_CHARS} characters")
    return dict(value)
