"""A diary that workers keep of what they do: a file that a kill -9 cannot take back, apart from any ledger.

Each line is a JSON list: time (the monotonic clock of the machine, in seconds), process id, what, and what it is about.

    held      task, chunk, token, [images]      a worker holds a chunk for later, and its images are under way
    claimed   task, chunk, token, [images]      a worker has a chunk in hand
    computed  task, chunk, image                one image of it is done
    recorded  task, chunk, token                its results are stored
    late      task, chunk, token                its results came too late and were dropped

``task`` is a job of Labelmill's, or "" in plain Celery, where a chunk is a Celery task.
"""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

__all__ = ["Diary", "Event", "Kill", "Reader"]


class Diary:
    """Written by every process of every worker; one write a line, which the kernel appends as a whole."""

    def __init__(self, path: str) -> None:
        self._file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)

    def write(self, what: str, *about: Any) -> None:
        """One line."""
        os.write(self._file, orjson.dumps([time.monotonic(), os.getpid(), what, *about]) + b"\n")


@dataclass(frozen=True)
class Event:
    """One line of it."""

    at: float
    pid: int
    what: str
    job: str
    chunk: str
    more: tuple[Any, ...]

    @property
    def key(self) -> tuple[str, str]:
        """The chunk's, among all jobs."""
        return self.job, self.chunk


@dataclass(frozen=True)
class Kill:
    """When it was, and the processes that died."""

    at: float
    pids: frozenset[int]


class Reader:
    """Reads the diary so far."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._offset = 0
        self._events: list[Event] = []

    def events(self) -> list[Event]:
        """Every event there was, in the order of writing."""
        if self._path.exists():
            with self._path.open("rb") as file:
                file.seek(self._offset)
                new = file.read()
            whole = new[: new.rfind(b"\n") + 1]
            self._offset += len(whole)
            for line in whole.splitlines():
                at, pid, what, job, chunk, *more = orjson.loads(line)
                self._events.append(Event(at, pid, what, job, chunk, tuple(more)))
        return self._events

    def count(self, what: str) -> int:
        """How many events of a kind there are."""
        return sum(event.what == what for event in self.events())

    def times_computed(self) -> Counter[tuple[str, str]]:
        """(job, image) -> how often it was computed to its end."""
        return Counter((event.job, event.more[0]) for event in self.events() if event.what == "computed")

    def times_delivered(self) -> Counter[tuple[str, str]]:
        """(job, image) -> how often a worker had it in hand."""
        return Counter((e.job, image) for e in self.events() if e.what == "claimed" for image in e.more[1])

    def held(self, pids: Collection[int], *, at: float) -> list[Event]:
        """The claims of what these processes had in hand at a moment."""
        hands: dict[str, Event] = {}
        for event in self.events():
            if event.pid in pids and event.at <= at:
                if event.what == "claimed":
                    hands[event.more[0]] = event
                elif event.what in ("recorded", "late"):
                    begun = hands.pop(event.more[0], event)
                    if begun.key != event.key:  # it has the next one in hand by now
                        hands[event.more[0]] = begun
        return list(hands.values())

    def is_in_hand(self, claim: Event) -> bool:
        """Whether its process has yet to finish what it claimed."""
        ends = (e for e in self.events() if e.what in ("recorded", "late"))
        return not any(end.key == claim.key and end.more == claim.more[:1] for end in ends)

    def recoveries(self, kills: Collection[Kill]) -> list[float]:
        """Seconds from each kill until each chunk in hand of the killed, or a half of it, was claimed again."""
        return [seconds for kill in kills for seconds in self._recoveries(kill)]

    def _recoveries(self, kill: Kill) -> Iterator[float]:
        later = [event for event in self.events() if event.what in ("held", "claimed") and event.at > kill.at]
        for claim in self.held(kill.pids, at=kill.at):
            for event in later:
                is_half = event.job == claim.job and event.chunk.startswith(f"{claim.chunk}.")
                if event.key == claim.key or is_half:
                    yield event.at - kill.at
                    break
