"""How a site's jobs ended, counted from what came out: the results as the command writes them, and the raw stream.

Nothing here asks the ledger for a count, but for ``labelmill audit``, which must agree.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, cast

import orjson

from tests.chaos.figures import Figures
from tests.chaos.site import Job, Site
from tests.support.cli import labelmill

__all__ = ["close"]


def close(site: Site, ends: Mapping[str, str] | None = None) -> Figures:
    """Wait for every job's end and count.

    ``ends`` are the error codes of those images that must fail. Counted are: ``images`` accepted; ``lost``: without a
    result; ``wrong``: not ended as it must; ``twice``: recorded more than once; ``unbalanced``: jobs whose audit finds
    something; ``recomputed``: images that workers computed more than once; ``late``: finishes that were dropped.
    """
    site.wait()
    found: Figures = Counter()
    for job in site.jobs:
        found.update(_count(site, job, ends or {}))
    found["recomputed"] = sum(n > 1 for n in site.diary.times_computed().values())
    found["late"] = site.diary.count("late")
    found["jobs"] = len(site.redis.client.zrange("lm:jobs", 0, -1))
    return found


def _count(site: Site, job: Job, ends: Mapping[str, str]) -> Figures:
    results = list(_results(site, job))
    by_name: dict[str, list[str]] = {name: [] for name in site.names}
    for line in results:
        by_name[line["custom_id"]].append(line["error"]["code"] if "error" in line else line["status"])
    for name, ended in by_name.items():
        if ended != [ends.get(name, "succeeded")]:
            _tell(site, job, name, ended)
    recorded = Counter(_recorded(site, job))
    twice = {name for name, found in by_name.items() if len(found) > 1}
    twice |= {name for name, n in recorded.items() if n > 1}
    audit = labelmill(site.redis, "audit", job.id, "--json")
    return Counter(
        images=len(by_name),
        lost=sum(not found or not recorded[name] for name, found in by_name.items()),
        wrong=sum(found[:1] != [ends.get(name, "succeeded")] for name, found in by_name.items() if found),
        twice=len(twice),
        unbalanced=int(audit.code != 0 or audit.json["recounted"] != _tally(results)),
    )


def _tell(site: Site, job: Job, name: str, ended: list[str]) -> None:
    """Print what is known of an image that did not end as it must: the site's files go with the site."""
    print(f"{job.id}: {name} ended as {ended}", file=sys.stderr)
    events = site.diary.events()
    chunks = {e.key for e in events if e.what == "claimed" and e.job == job.id and name in e.more[1]}
    for event in events:
        if event.key in chunks:
            print(f"  {event}", file=sys.stderr)


def _results(site: Site, job: Job) -> Iterator[dict[str, Any]]:
    output = Path(site.folder / f"{job.id}.jsonl")
    done = labelmill(site.redis, "results", job.id, "--output", output)
    assert done.code == 0, done.err
    yield from map(orjson.loads, output.read_bytes().splitlines())


def _recorded(site: Site, job: Job) -> Iterator[str]:
    """The id of each image of each entry that was ever added to the job's stream of results."""
    stream = cast("list[tuple[bytes, dict[bytes, bytes]]]", site.redis.client.xrange(f"lm:job:{job.id}:results"))
    for _, fields in stream:
        for line in fields[b"i"].splitlines()[1:]:
            item = orjson.loads(line)
            yield item if isinstance(item, str) else item[0]


def _tally(results: list[dict[str, Any]]) -> dict[str, int]:
    found = Counter(line["status"] for line in results)
    return {name: found[name] for name in ("succeeded", "failed", "cancelled", "expired")}
