"""The contract of a source: what can be submitted as a job."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar, runtime_checkable

from jobs.errors import InvalidItemError, ItemError
from jobs.items import BROKEN, MAX_ID_CHARS, UNCARRIABLE, Item

__all__ = [
    "Located",
    "Named",
    "Picture",
    "Source",
    "Upload",
    "broken",
    "carriable",
    "is_carriable",
    "spelled_out",
    "unnamable",
]


@dataclass(frozen=True, slots=True)
class Upload:
    """One image by value: its bytes go into Redis, and are deleted as soon as it is classified."""

    custom_id: str
    data: bytes
    fields: dict[str, Any] | None = None


Picture = Item | Upload

P = TypeVar("P", bound=Picture)


class Source(Protocol):
    """What can be submitted as a job. Reading is lazy, however many images there are."""

    #: Folder that references have in common; makes items small on the wire. Empty where there is none.
    base: str
    #: True where no custom_id can come twice, so that nobody needs to look for it.
    unique: bool

    def __iter__(self) -> Iterator[Picture]:
        """The images, lazily; a second iteration begins anew."""


@runtime_checkable
class Named(Protocol):
    """A source whose references are mostly its base and the custom_id: no need to make those only to leave them out."""

    def named(self) -> Iterator[Picture | str]:
        """Its images, as iterated; where a reference is ``<base>/<custom_id>``, the custom_id alone."""


@runtime_checkable
class Located(Protocol):
    """A source that can say where each custom_id comes from, without reading an image."""

    def ids(self) -> Iterator[tuple[str, str]]:
        """Each custom_id with its place, such as ``list.csv:7``, in any order, and the first of them at once."""


def spelled_out(pictures: Iterable[P | str], base: str) -> Iterator[P | Item]:
    """What a source has :class:`Named`, with the references."""
    begin = f"{base}/" if base else ""
    for picture in pictures:
        yield Item(picture, begin + picture) if isinstance(picture, str) else picture


def is_carriable(name: str) -> bool:
    """True where a name can be a custom_id as it stands."""
    return 0 < len(name) <= MAX_ID_CHARS and not UNCARRIABLE.search(name)


def carriable(name: str) -> str:
    """A name that can be a custom_id: what cannot travel is written as ``\\xNN``, and a digest keeps it unique."""
    digest = hashlib.sha256(name.encode(errors="surrogatepass")).hexdigest()[:8]
    shown = UNCARRIABLE.sub(lambda match: f"\\x{ord(match[0]) & 0xFF:02x}", name)
    return f"{shown[: MAX_ID_CHARS - 9]}~{digest}"


def broken(custom_id: str, error: ItemError, fields: dict[str, Any] | None = None) -> Item:
    """An image that its producer could not read: an item that fails with this error, so that nobody misses it."""
    return Item(custom_id, f"{BROKEN}{error.code}", fields)


def unnamable(name: str) -> Item:
    """An image whose name cannot travel: an item that fails."""
    return broken(carriable(name), InvalidItemError())
