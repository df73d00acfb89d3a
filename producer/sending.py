"""Sending: each chunk of a source goes into the ledger, and then its ticket to the broker."""

from __future__ import annotations

import secrets
import threading
import time
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING

from jobs.backlog import measured_rate
from jobs.errors import JobError, LabelmillError
from jobs.items import check_items, encode_chunk
from jobs.ledger import JobStatus, Queued, TakenError
from producer.cutting import Chunk, Measure, check_size, cut, together
from producer.ids import check_ids, missing, sent_ids
from producer.lock import SendLock
from producer.sources import Located, Named, Picture, Source

if TYPE_CHECKING:
    from producer.client import Labelmill

__all__ = ["Sender", "StoppedError"]

#: Work of one chunk, in seconds: an interactive request waits for one chunk at most.
CHUNK_S = 0.1
#: Items of a chunk at the most, and where no worker has said how fast it is.
LARGEST_CHUNK, UNKNOWN_CHUNK = 1024, 32
#: Chunks of a job up to which each is rung for. Whoever takes a ticket leaves others where more wait.
RUNG = 2
#: Chunks that are written in one round trip at the most.
TOGETHER = 16
#: Seconds between two looks at what a producer waits for.
POLL_S = 0.2
#: Of Redis's own maxmemory, where it has one: producers wait past this share of it.
OF_MAXMEMORY = 0.75
#: Chunks, and uploaded bytes, between two looks at the memory of Redis.
MEMORY_EVERY, MEMORY_EVERY_BYTES = 64, 32 << 20
#: Digests of uploaded images that are remembered, so that the same bytes are not sent again.
REMEMBERED = 100_000


class StoppedError(LabelmillError):
    """Sending was stopped; the same job goes on where it was left."""


class Sender:
    """Sends one source to one job. ``sent`` counts items; ``waiting`` says what it waits for, if anything.

    Both may be read from another thread; :meth:`stop` may be called from one.
    """

    def __init__(self, client: Labelmill, job_id: str, *, chunk_size: int | None = None) -> None:
        self.job_id = job_id
        self.sent = 0
        self.waiting = ""
        self._client = client
        self._ledger = client.ledger
        self._chunk_size = check_size(chunk_size)
        self._stop = threading.Event()
        self._known: OrderedDict[str, None] = OrderedDict()
        self._unweighed = self._unweighed_chunks = 0
        #: Items of the job that waited when its last chunk was written.
        self._queued = 0
        self._finished = threading.Event()
        self._failure: BaseException | None = None

    def start(self, source: Source, *, checked: bool = False) -> None:
        """Begin to :meth:`send` in a thread of its own."""
        threading.Thread(target=self._run, args=(source, checked), name="sender", daemon=True).start()

    def join(self, timeout_s: float) -> bool:
        """Wait for what :meth:`start` began; False while it goes on. Raises what ended it."""
        # not Thread.join: one that a signal interrupts takes the thread for ended (bpo-45274)
        if not self._finished.wait(timeout_s):
            return False
        if self._failure is not None:
            raise self._failure
        return True

    def _run(self, source: Source, checked: bool) -> None:
        try:
            self.send(source, checked=checked)
        except BaseException as exc:  # noqa: BLE001 - raised again by join
            self._failure = exc
        finally:
            self._finished.set()

    def stop(self) -> None:
        """End :meth:`send` with :class:`StoppedError` after the chunks it is at, which are a few."""
        self._stop.set()

    def send(self, source: Source, *, checked: bool = False) -> int:
        """Send what the job has not accepted yet, and seal it; returns how many items that were.

        ``checked``: the ids of the source were checked. Raises :class:`~jobs.errors.SourceError` before anything is
        sent where they are not unique, and :class:`~jobs.errors.JobError` where the job takes no more items.
        """
        if not checked and not self._status().sealed:
            check_ids(source)
        while True:
            lock = self._await_turn()
            if lock is None:
                self._refuse_incomplete()
                return self.sent
            with lock.held():
                try:
                    self._send_rest(source)
                    return self.sent
                except TakenError:  # we were silent for too long, and another one has gone on; or Redis came back older
                    continue

    def _await_turn(self) -> SendLock | None:
        """The lock; None where nothing is left to be sent."""
        lock = SendLock(self._ledger, self.job_id)
        while not self._status().sealed:
            if self._client.patience(lock.acquire):
                self.waiting = ""
                return lock
            self._pause("another producer sends this job")
        self.waiting = ""
        return None

    def _refuse_incomplete(self) -> None:
        """A job that was closed before all its images were sent must not look as if they were there."""
        status = self._status()
        if not status.complete:
            how = (
                "was cancelled" if status.request_counts["cancelled"] or status.state == "cancelling" else "has expired"
            )
            raise JobError(
                f"job {self.job_id} {how} before all its images were sent: use another id, or delete it first"
            )

    def _send_rest(self, source: Source) -> None:
        writer = secrets.token_hex(8)
        number = self._client.patience(lambda: self._ledger.take_over(self.job_id, writer))
        status = self._status()
        if status.sealed:
            return
        pictures: Iterable[Picture | str] = source.named() if isinstance(source, Named) else source
        if number:
            pictures = missing(source, sent_ids(self._ledger, self.job_id))
        chunks = _checked(cut(pictures, lambda: self._measure(status, source)), source.base)
        limit = self._client.settings.backlog_limit
        for group in together(chunks, lambda: limit - self._queued, most=TOGETHER if _is_known(source) else 1):
            self._write(number, group, source.base, status.lane, writer)
            number += len(group)
            self._make_room()
        self._client.patience(lambda: self._ledger.seal(self.job_id, writer=writer, chunks=number))

    def _measure(self, status: JobStatus, source: Source) -> Measure:
        """What a process does in :data:`CHUNK_S`, as measured under load, else as workers found at their start."""
        if self._chunk_size:
            return Measure(self._chunk_size)
        serving = self._client.patience(lambda: self._client.registry.serving(status.model, status.digest))
        processes = sum(served.processes for served in serving) if _is_known(source) else 0
        rates = [served.images_per_s for served in serving if served.images_per_s]
        if not rates:
            return Measure(UNKNOWN_CHUNK, processes)
        prefix = self._client.settings.key_prefix
        rate = self._client.patience(lambda: measured_rate(self._ledger.redis, status.model, prefix=prefix))
        rate = rate or sum(rates) / len(rates)
        return Measure(max(1, min(LARGEST_CHUNK, round(CHUNK_S * rate))), processes)

    def _write(self, number: int, group: Sequence[Chunk], base: str, lane: str, writer: str) -> None:
        """Into the ledger, in one round trip where nothing is refused, then the tickets that are lacking."""
        sent_ms = int(time.time() * 1000)
        payloads = [encode_chunk(chunk.items, base=base, sent_ms=sent_ms) for chunk in group]
        sent = [(payload, self._unknown(chunk.blobs)) for payload, chunk in zip(payloads, group, strict=True)]
        answers = self._client.patience(lambda: self._ledger.submit_all(self.job_id, number, sent, writer=writer))
        self._accepted(group, answers, lane)
        for place in range(len(answers), len(group)):
            one = partial(self._ledger.submit, self.job_id, number + place, payloads[place], writer=writer)
            # all of its bytes: some of those that were there may have been done with, and deleted, in the meantime
            answer = self._client.patience(partial(one, blobs=group[place].blobs))
            self._unweighed += group[place].size
            self._accepted(group[place:], [answer], lane)

    def _accepted(self, chunks: Sequence[Chunk], answers: Sequence[Queued], lane: str) -> None:
        """Those of the chunks that have an answer are in the ledger."""
        for chunk, queued in zip(chunks, answers, strict=False):
            self.sent += len(chunk.items)
            self._unweighed_chunks += 1
            self._queued = queued.items
        if lacking := sum(queued.chunks <= RUNG for queued in answers):
            self._client.patience(lambda: self._client.bell.ring(lane, lacking))

    def _unknown(self, blobs: dict[str, bytes]) -> dict[str, bytes]:
        """Those that were not sent before; from now on they are known."""
        new = {digest: data for digest, data in blobs.items() if digest not in self._known}
        self._unweighed += sum(map(len, new.values()))
        self._known |= dict.fromkeys(new)
        while len(self._known) > REMEMBERED:
            self._known.popitem(last=False)
        return new

    # -- back-pressure ----------------------------------------------------------------------------

    def _make_room(self) -> None:
        """Wait while the backlog of the job is deep or Redis is full, and say so."""
        weigh = self._unweighed_chunks >= MEMORY_EVERY or self._unweighed >= MEMORY_EVERY_BYTES
        reason = self._crowded(self._queued, weigh=weigh)
        if reason:
            with self._client.sweeping():
                while reason:
                    self._pause(reason)
                    reason = self._crowded(self._status().request_counts["queued"], weigh=True)
            self.waiting = ""
        if self._stop.is_set():
            raise StoppedError()

    def _crowded(self, queued: int, *, weigh: bool) -> str:
        settings = self._client.settings
        if queued > settings.backlog_limit:
            return f"{queued:,} images are queued (limit {settings.backlog_limit:,})"
        if not weigh:
            return ""
        self._unweighed = self._unweighed_chunks = 0
        info = self._client.patience(lambda: self._ledger.redis.info("memory"))
        used, allowed = int(info["used_memory"]), int(info["maxmemory"])
        # past its own maxmemory a Redis refuses everybody's writes, results among them: stop well before
        mark = min(settings.redis_memory_mark, int(allowed * OF_MAXMEMORY) or settings.redis_memory_mark)
        if used > mark:
            return f"Redis holds {used >> 20} MiB (mark {mark >> 20} MiB)"
        return ""

    def _pause(self, reason: str) -> None:
        self.waiting = reason
        if self._stop.wait(POLL_S):
            raise StoppedError()

    def _status(self) -> JobStatus:
        return self._client.patience(lambda: self._ledger.status(self.job_id))


def _checked(chunks: Iterable[Chunk], base: str) -> Iterator[Chunk]:
    for chunk in chunks:
        check_items(chunk.items, base=base)
        yield chunk


def _is_known(source: Source) -> bool:
    """Whether all of it is there already: images that are sent as they come must not wait for those that follow."""
    return isinstance(source, Located) or not source.unique
