"""Where images come from. A source yields items lazily, however many there are."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

from jobs.items import Item
from producer.sources.files import Files

__all__ = ["Files", "Source"]


class Source(Protocol):
    """What can be submitted as a job."""

    #: Folder that references have in common; makes items small on the wire. Empty where there is none.
    base: str
    #: True where no custom_id can come twice, so that nobody needs to look for it.
    unique: bool

    def __iter__(self) -> Iterator[Item]:
        """The items, lazily; a second iteration begins anew."""
