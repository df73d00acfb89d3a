"""Micro-batches of single calls: a process that got one takes along others that wait on the same queue.

What is batched is only what would have had to wait: without load there is one call and nothing is gained or lost. Calls
that are taken along stay with the broker until their answers are written, see :mod:`worker.postbox`; which of them
may be taken is told in :mod:`worker.letters`, and how they are answered in :mod:`worker.replies`.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache, partial
from typing import Any

from celery import Celery

from jobs.patience import GONE
from worker.calls import Call, answer_all
from worker.fetch import is_remote
from worker.letters import Letter, read
from worker.postbox import Postbox, open_box
from worker.replies import Replies
from worker.revoked import revoked
from worker.warm import Warm, current

__all__ = ["Gatherer", "gatherer"]

log = logging.getLogger(__name__)

#: Calls that run together at most, and the seconds that they may take: whoever comes next waits as long.
MOST, LONGEST_S = 128, 0.1
#: Images from other machines in one go at most: they are fetched side by side, and each may be waited for.
MOST_REMOTE = 8
#: Weight of the latest measurement in the mean.
NEWEST = 0.3
#: Seconds between two looks at an empty queue while a longest wait is set.
POLL_S = 0.0005


@cache
def gatherer(app: Celery) -> Gatherer:
    """The one of this process."""
    warm = current()
    return Gatherer(app, warm, Replies(app), warm.settings.interactive_batch, warm.settings.interactive_wait_s)


@dataclass
class Gatherer:
    """Gathers calls in one process, waiting up to ``wait_s`` for more.

    ``limit``: calls run together at most; 1 gathers nothing, 0 a batch of the model, or as many as take
    :data:`LONGEST_S`, whichever are more.
    """

    app: Celery
    warm: Warm
    replies: Replies
    limit: int = 0
    wait_s: float = 0.0
    _answers: dict[str, dict[str, Any]] = field(default_factory=dict)
    _call_s: float = 0.0
    #: One call in so many of those that wait: as many processes as cores are thought to take from a queue.
    _share: int = field(default_factory=lambda: len(os.sched_getaffinity(0)))

    def classify(self, task_id: str, queue: str, call: Call, *, waiting: int | None = None) -> dict[str, Any]:
        """The answer to a call; others that wait on its queue are answered with it.

        ``waiting``: how many those were when it was delivered, where that is known. With none, a look for them would
        cost the call a round trip.
        """
        known = self._answers.pop(task_id, None)  # we are inside the trace of a call that was taken along
        if known is not None:
            return known
        began = time.perf_counter()
        most = self._most() - 1
        is_alone = not queue or most <= 0 or (waiting == 0 and not self.wait_s)
        try:
            own, others = (answer_all([call])[0], 0) if is_alone else self._answer(call, queue, most)
        except GONE as exc:  # what was taken comes back by itself
            log.info("no calls can be taken along from %s (%s)", queue, type(exc).__name__)
            return answer_all([call])[0]
        self._learn((time.perf_counter() - began) / (1 + others))
        return own

    def _most(self) -> int:
        if self.limit:
            return self.limit
        liked = max(engine.batch_size for engine in self.warm.engines.values())
        return max(liked, min(MOST, int(LONGEST_S / self._call_s))) if self._call_s else liked

    def _learn(self, call_s: float) -> None:
        self._call_s += (call_s - self._call_s) * (NEWEST if self._call_s else 1.0)

    def _answer(self, call: Call, queue: str, most: int) -> tuple[dict[str, Any], int]:
        """The answer to a call, and how many others were answered with it."""
        box = open_box(self.app)
        self.warm.note(box.begin())
        try:
            return self._answer_with(box, call, queue, most)
        finally:
            self.warm.note("")

    def _answer_with(self, box: Postbox, call: Call, queue: str, most: int) -> tuple[dict[str, Any], int]:
        letters = self._take(box, queue, most)
        try:
            own, *others = answer_all([call, *(letter.call for letter in letters)])
        except Exception:  # it may be the fault of any of them
            box.put_back(queue, [letter.sealed.receipt for letter in letters], tried=True)
            raise
        self._reply(box, letters, others)
        return own, len(others)

    def _take(self, box: Postbox, queue: str, most: int) -> list[Letter]:
        deadline = time.monotonic() + self.wait_s
        sealed = box.take(queue, most, self._share)
        while len(sealed) < most and time.monotonic() < deadline:
            time.sleep(POLL_S)
            sealed += box.take(queue, most - len(sealed), self._share)
        letters: list[Letter] = []
        others: list[int] = []
        remote = 0
        for position, one in enumerate(sealed):
            letter = read(one, self.warm.engines, is_revoked=revoked().__contains__)
            remote += bool(letter and is_remote(str(letter.call.image)))
            if letter is None or remote > MOST_REMOTE:
                others.append(position)
            else:
                letters.append(letter)
        box.put_back(queue, others)
        return letters

    def _reply(self, box: Postbox, letters: Sequence[Letter], answers: Sequence[dict[str, Any]]) -> None:
        """Write every answer: those of plain calls at once, and the others one by one through Celery's trace."""
        watched = self.replies.are_watched()
        pairs = list(zip(letters, answers, strict=True))
        plain = [pair for pair in pairs if pair[0].is_plain and not watched]
        for letter, answer in pairs:
            if watched or not letter.is_plain:
                self._trace(letter, answer)
                self.warm.patience(partial(box.acknowledge, [letter.sealed.receipt]))
        self.warm.patience(lambda: self.replies.write_all([one for one, _ in plain], [answer for _, answer in plain]))
        self.warm.patience(lambda: box.acknowledge([one.sealed.receipt for one, _ in plain]))

    def _trace(self, letter: Letter, answer: dict[str, Any]) -> None:
        self._answers[letter.id] = answer
        try:
            self.replies.trace(letter)
        finally:
            self._answers.pop(letter.id, None)
