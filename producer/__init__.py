"""Labelmill for producers: submit images in bulk, watch them, take their labels.

from producer import Labelmill

job = Labelmill().submit("photos/", model="efficientnet-lite0")
for result in job.results():
    print(result.custom_id, result.status)

Nothing is imported before it is used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from jobs.items import Item, Result
    from jobs.records import JobStatus
    from jobs.settings import Settings
    from producer.aio import AsyncJob, AsyncLabelmill
    from producer.client import Labelmill
    from producer.events import Event
    from producer.job import Job
    from producer.sources import Archive, Files, Manifest, Objects, Source, Upload, open_source

__all__ = [
    "Archive",
    "AsyncJob",
    "AsyncLabelmill",
    "Event",
    "Files",
    "Item",
    "Job",
    "JobStatus",
    "Labelmill",
    "Manifest",
    "Objects",
    "Result",
    "Settings",
    "Source",
    "Upload",
    "open_source",
]

_HOMES = {
    "jobs.items": ("Item", "Result"),
    "jobs.records": ("JobStatus",),
    "jobs.settings": ("Settings",),
    "producer.aio": ("AsyncJob", "AsyncLabelmill"),
    "producer.client": ("Labelmill",),
    "producer.events": ("Event",),
    "producer.job": ("Job",),
    "producer.sources": ("Archive", "Files", "Manifest", "Objects", "Source", "Upload", "open_source"),
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}


def __getattr__(name: str) -> Any:
    if name not in _HOME_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOME_OF[name]), name)
