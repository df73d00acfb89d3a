"""Progress of a job: a bar on a terminal, plain lines in a pipe. Both go to stderr."""

from __future__ import annotations

import time
from collections import deque
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn

from jobs.ledger import JobStatus

__all__ = ["Rate", "Watch", "duration"]

#: Seconds over which rates are taken: they are of now, not since the start.
WINDOW_S = 10.0
#: Seconds between two plain lines.
LINE_EVERY_S = 5.0


class Rate:
    """Images per second over the last :data:`WINDOW_S`."""

    def __init__(self) -> None:
        self._marks: deque[tuple[float, int]] = deque()

    def update(self, done: int, now: float | None = None) -> float:
        """Note how many are done by now; returns the rate in images/s, 0 where it is not known yet.

        What was done and is retried is to be done again: the count begins anew there.
        """
        now = time.monotonic() if now is None else now
        if self._marks and done < self._marks[-1][1]:
            self._marks.clear()
        self._marks.append((now, done))
        while len(self._marks) > 2 and self._marks[1][0] <= now - WINDOW_S:
            self._marks.popleft()
        (first, before), (last, after) = self._marks[0], self._marks[-1]
        return (after - before) / (last - first) if last > first else 0.0


def duration(seconds: float) -> str:
    """``75`` as ``1:15``, ``3675`` as ``1:01:15``."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


class Watch:
    """Shows a job's state each time it is told. Use it as a context.

    ``bar=False``: lines also on a terminal, because results are written to it meanwhile.
    """

    def __init__(self, console: Console, *, bar: bool = True) -> None:
        self._console = console
        self._rate = Rate()
        self._next_line = 0.0
        self._said: dict[str, int] = {}
        self._bar: Progress | None = None
        self._task = TaskID(0)
        if bar and console.is_terminal:
            columns = (BarColumn(bar_width=30), TextColumn("{task.description}"))
            self._bar = Progress(*columns, console=console, transient=True)
            self._task = self._bar.add_task("starting", total=None)

    def __enter__(self) -> Watch:
        if self._bar:
            self._bar.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None) -> None:
        if self._bar:
            self._bar.stop()

    def note(self, text: str) -> None:
        """A line apart from the progress, such as a Redis that is gone."""
        self._console.print(text, style="yellow", markup=False, highlight=False, soft_wrap=True)

    def update(self, status: JobStatus, *, last: bool = False, waiting: str = "") -> None:
        """Show a state, and what sending waits for; ``last`` is always said in a pipe, once."""
        rate = self._rate.update(status.done)
        text = describe(status, rate) + (f"; sending waits: {waiting}" if waiting else "")
        if self._bar:
            total = status.request_counts["total"] or None
            self._bar.update(self._task, completed=status.done, total=total, description=text)
        elif (last and status.request_counts != self._said) or time.monotonic() >= self._next_line:
            self._console.print(text, markup=False, highlight=False, soft_wrap=True)
            self._said = status.request_counts
            self._next_line = time.monotonic() + LINE_EVERY_S


def describe(status: JobStatus, rate: float) -> str:
    """One line: done, total, failed, images/s, time left."""
    counts = status.request_counts
    more = "" if status.sealed else "+"
    parts = [f"{status.done}/{counts['total']}{more}", f"{counts['failed']} failed"]
    parts += [f"{counts[name]} {name}" for name in ("cancelled", "expired") if counts[name]]
    if rate:
        parts.append(f"{rate:.0f} images/s")
        left = counts["queued"] + counts["leased"]
        if left and status.sealed:
            parts.append(f"{duration(left / rate)} left")
    return ", ".join(parts)
