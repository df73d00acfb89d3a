"""What comes as it happens: results and errors in JSON Lines or CSV, and server-sent events.

Each JSON line ends with its cursor: whoever was cut off asks for what is ``after`` the last line that came whole.
"""

from __future__ import annotations

import io
import re
import select
import socket
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import orjson
from flask import Blueprint, Response, request

from jobs.errors import JobError
from jobs.items import Result
from jobs.records import JobStatus
from producer.job import Job
from producer.outputs import Writer, open_writer
from producer.progress import Rate
from producer.web.guards import Slots
from producer.web.jobs import find, job_object
from producer.web.problems import Problem
from producer.web.queries import flag, number
from producer.web.service import Service

__all__ = ["blueprint"]

#: Seconds between two looks at a job while nothing comes, and between two signs of life to an idle listener.
LOOK_S, PING_S = 0.25, 10.0
#: Most results of one request that names a limit.
MAX_LIMIT = 1_000_000

#: Tells nginx to pass on what comes as it comes.
_UNBUFFERED = {"X-Accel-Buffering": "no"}

_CURSOR = re.compile(r"(\d{1,20})-(\d{1,20})(?::(\d{1,9}))?")
_TYPES = {"jsonl": "application/x-ndjson", "csv": "text/csv; charset=utf-8"}
#: What a cell begins with that a spreadsheet would compute.
_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\uff1d", "\uff0b", "\uff0d", "\uff20")
_LAST_SEQ = 2**64 - 1


def blueprint(service: Service, slots: Slots) -> Blueprint:
    """``/v1/jobs/ID/results``, ``/errors`` and ``/events``."""
    views = Blueprint("streams", __name__)

    @views.get("/v1/jobs/<job_id>/results")
    def results(job_id: str) -> Response:
        return _download(service, slots, job_id, lambda result: True, "results")

    @views.get("/v1/jobs/<job_id>/errors")
    def errors(job_id: str) -> Response:
        return _download(service, slots, job_id, lambda result: result.status != "succeeded", "errors")

    @views.get("/v1/jobs/<job_id>/events")
    def events(job_id: str) -> Response:
        job = find(service, job_id)
        after, last = _cursor(request.args.get("after")), request.headers.get("Last-Event-ID")
        if last is not None:
            after = _cursor(last)  # of a browser that comes back: its URL is the one it first came with
        with_results = flag("results")
        choice = _Choice(after, lambda result: with_results, follow=True)
        stream = _events(job, choice, _hang_up_of(service))
        return _streamed(stream, slots, "text/event-stream; charset=utf-8", {})

    return views


def _download(service: Service, slots: Slots, job_id: str, wanted: Callable[[Result], bool], what: str) -> Response:
    job = find(service, job_id)
    format = request.args.get("format", "jsonl")
    if format not in _TYPES:
        raise Problem(422, "bad_format", f"format must be one of {', '.join(_TYPES)}")
    choice = _Choice(_cursor(request.args.get("after")), wanted, flag("follow"), number("limit", MAX_LIMIT))
    status = job.status()
    chosen = choice.pages(job, _hang_up_of(service))
    lines = _jsonl(chosen) if format == "jsonl" else _csv(chosen, status)
    headers = {"Labelmill-Job-State": status.state}
    if flag("download"):
        headers["Content-Disposition"] = f'attachment; filename="{job.id}-{what}.{format}"'
    return _streamed(lines, slots, _TYPES[format], headers)


def _streamed(pieces: Iterator[bytes], slots: Slots, kind: str, headers: dict[str, str]) -> Response:
    """An answer that holds a slot until its last piece is sent or its reader is gone."""
    slots.take()
    answer = Response(pieces, content_type=kind, headers={**headers, **_UNBUFFERED})
    answer.call_on_close(slots.give)
    return answer


@dataclass(frozen=True)
class _Choice:
    """Which results are asked for: those after a cursor, up to so many, those that are wanted."""

    after: tuple[str, str, int]
    wanted: Callable[[Result], bool]
    follow: bool
    limit: int | None = None

    def pages(self, job: Job, gone: Callable[[], bool]) -> Iterator[list[Result]]:
        """The results, a page at a time; an empty page where nothing came for a while."""
        start, entry, position = self.after
        sent = 0
        for _, page in job.pages(after=start, wait_s=LOOK_S, follow=self.follow):
            if gone():
                return
            found = [r for r in page if not (r.entry == entry and r.position <= position) and self.wanted(r)]
            yield found if self.limit is None else found[: self.limit - sent]
            sent += len(found)
            if self.limit is not None and sent >= self.limit:
                return


def _jsonl(pages: Iterator[list[Result]]) -> Iterator[bytes]:
    yield b""  # sends the headers: the first line may be long in coming
    for page in pages:
        if page:
            yield b"".join(map(_line, page))


def _line(result: Result) -> bytes:
    return orjson.dumps(
        {**result.as_dict(), "cursor": f"{result.entry}:{result.position}"}, option=orjson.OPT_APPEND_NEWLINE
    )


def _csv(pages: Iterator[list[Result]], status: JobStatus) -> Iterator[bytes]:
    buffer = io.BytesIO()
    writer: Writer = open_writer("csv", buffer, top_k=status.top_k)
    for page in pages:
        writer.write([_defused(result) for result in page])
        if buffer.tell():
            yield buffer.getvalue()
            buffer.seek(0)
            buffer.truncate()
    writer.close()
    yield buffer.getvalue()


def _defused(result: Result) -> Result:
    """Texts that strangers chose, so that no spreadsheet takes them for a formula (OWASP, "CSV Injection")."""
    labels = result.labels and [{**label, "label": _text(label["label"])} for label in result.labels]
    error = result.error and {**result.error, "message": _text(result.error["message"])}
    return result._replace(custom_id=_text(result.custom_id), labels=labels, error=error)


def _text(text: str) -> str:
    return f"'{text}" if text.startswith(_FORMULA) else text


def _events(job: Job, choice: _Choice, gone: Callable[[], bool]) -> Iterator[bytes]:
    """``progress`` when something has changed, ``results`` where they are asked for; ``ended`` or ``deleted`` last."""
    told = _Told()
    yield b"retry: 2000\n\n"
    try:
        for page in choice.pages(job, gone):
            pieces = _results_event(page) + told.progress(job)
            if pieces or told.is_quiet():
                yield pieces or b": still here\n\n"
        status = job.status()
        if status.ended:
            yield b"event: ended\ndata: %b\n\n" % told.body(status)
    except JobError:
        yield b"event: deleted\ndata: {}\n\n"


def _results_event(page: list[Result]) -> bytes:
    if not page:
        return b""
    cursor = f"{page[-1].entry}:{page[-1].position}".encode()
    return b"id: %b\nevent: results\ndata: %b\n\n" % (cursor, orjson.dumps([result.as_dict() for result in page]))


class _Told:
    """What one listener knows of a job's progress."""

    def __init__(self) -> None:
        self._rate = Rate()
        self._last = b""
        self._next_look = 0.0
        self._spoke = time.monotonic()

    def progress(self, job: Job) -> bytes:
        """An event where the job has changed, and not too soon after the last look."""
        now = time.monotonic()
        if now < self._next_look:
            return b""
        self._next_look = now + LOOK_S
        body = self.body(job.status())
        if body == self._last:
            return b""
        self._last, self._spoke = body, now
        return b"event: progress\ndata: %b\n\n" % body

    def is_quiet(self) -> bool:
        """True where nothing was said for so long that a sign of life is due."""
        quiet = time.monotonic() - self._spoke > PING_S
        if quiet:
            self._spoke = time.monotonic()
        return quiet

    def body(self, status: JobStatus) -> bytes:
        """The job with its rate over the last seconds (images/s) and the seconds left at that rate."""
        counts = status.request_counts
        rate = self._rate.update(status.done)
        waiting = counts["queued"] + counts["leased"]
        left = round(waiting / rate, 1) if rate and waiting else None
        return orjson.dumps({**job_object(status), "images_per_s": round(rate, 1), "seconds_left": left})


def _hang_up_of(service: Service) -> Callable[[], bool]:
    """Says whether nobody listens any more, or the process is asked to stop."""
    sock: socket.socket | None = request.environ.get("gunicorn.socket")

    def gone() -> bool:
        if service.stopping.is_set():
            return True
        if sock is None:
            return False
        readable = select.poll()  # not select(), which knows no descriptor above 1023
        readable.register(sock, select.POLLIN)
        return bool(readable.poll(0)) and not sock.recv(1, socket.MSG_PEEK)

    return gone


def _cursor(text: str | None) -> tuple[str, str, int]:
    """The stream entry to begin after, and the entry and position up to which results are left out."""
    if text is None:
        return "0-0", "", -1
    match = _CURSOR.fullmatch(text)
    if not match:
        raise Problem(422, "bad_cursor", "after must be the cursor of a line")
    ms, seq, position = int(match[1]), int(match[2]), match[3]
    entry = f"{ms}-{seq}"
    if max(ms, seq) > _LAST_SEQ:
        raise Problem(422, "bad_cursor", "after must be the cursor of a line")
    if position is None:
        return entry, "", -1
    before = f"{ms}-{seq - 1}" if seq else f"{max(0, ms - 1)}-{_LAST_SEQ if ms else 0}"
    return before, entry, int(position)
