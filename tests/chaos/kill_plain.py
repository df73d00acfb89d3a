"""The same on plain Celery with acks_late: its own figures, beside ours."""

from __future__ import annotations

import base64
import random
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from celery import Celery

from tests.chaos.crew import Crew, dismissed
from tests.chaos.diary import Reader
from tests.chaos.figures import Dose, Fault, Measured, given
from tests.chaos.kill_worker import CHUNK, ITEM_S, PAUSE_S, tell
from tests.chaos.plain_worker import VISIBILITY_S
from tests.chaos.site import PROCESSES
from tests.support.servers import ProcessGroup, RedisServer, eventually, redis_server

__all__ = ["FAULT"]

TASK = "tests.chaos.plain_worker.classify_all"
QUEUE = "celery"
#: Tasks of one burst, by reference and by value in turn.
BURST, BY = 250, ("reference", "value")
#: Seconds until every image must be sent, and plain Celery at rest, once nothing is killed any more.
END_S = 600.0
#: What has not come back after so many seconds of quiet, with nothing in any list of the broker's, never will.
QUIET_S = 3.0 * VISIBILITY_S


class _Plain:
    """A Redis, a crew of plain workers on it, and a producer that sends to it."""

    def __init__(self, redis: RedisServer, folder: Path, crew: Crew, dose: Dose) -> None:
        self.redis = redis
        self.crew = crew
        self.diary = Reader(folder / "diary")
        self.sent = 0
        self._images = folder / "images"
        self._broker = Celery("producer", broker=redis.broker_url)
        self._burst = min(BURST, dose["images"] // CHUNK // 2)

    def top_up(self) -> int:
        """A burst more where little waits; all images that were sent by now."""
        if self.redis.client.llen(QUEUE) < self._burst / 2:
            self._send()
        return self.sent

    def _send(self) -> None:
        by = BY[self.sent // (self._burst * CHUNK) % len(BY)]
        with self._broker.producer_pool.acquire(block=True) as producer:
            for start in range(self.sent, self.sent + self._burst * CHUNK, CHUNK):
                names = [self._images / f"{number:05}.jpg" for number in range(start, start + CHUNK)]
                for name in names:
                    name.write_text(f"GOOD {name.name}\n")
                images = [
                    base64.b64encode(name.read_bytes()).decode() if by == "value" else str(name) for name in names
                ]
                self._broker.send_task(TASK, (images, by), producer=producer)
        self.sent += self._burst * CHUNK

    def wait(self) -> None:
        """Until every task is done, or nothing has happened for so long that nothing will."""
        before, since = (0, 0), time.monotonic()

        def is_over() -> bool:
            nonlocal before, since
            now = len(self.diary.events()), self._held()
            if now != before or now[1]:
                before, since = now, time.monotonic()
            is_done = (
                len({event.chunk for event in self.diary.events() if event.what == "recorded"}) * CHUNK == self.sent
            )
            return not now[1] and (is_done or time.monotonic() - since > QUIET_S)

        eventually(is_over, END_S, what="plain Celery has come to rest")

    def _held(self) -> int:
        client = self.redis.client
        return int(client.llen(QUEUE)) + int(client.hlen("unacked"))


def strike(dose: Dose, rng: random.Random) -> Measured:
    """Kill until the dose is given, and see what came of the images."""
    with _plain(dose) as here:
        here.top_up()
        while len(here.crew.kills) < dose["kills"]:
            time.sleep(rng.uniform(0, PAUSE_S))
            here.crew.kill(here.crew.pick(rng, of=dose["workers"] - 1)[0])
            here.top_up()
        eventually(lambda: here.top_up() >= dose["images"], END_S, what="all images are sent")
        here.wait()
        recorded = Counter(event.chunk for event in here.diary.events() if event.what == "recorded")
        found = Counter(
            kills=len(here.crew.kills),
            images=here.sent,
            lost=here.sent - CHUNK * len(recorded),
            twice=CHUNK * sum(n > 1 for n in recorded.values()),
            recomputed=sum(n > 1 for n in here.diary.times_computed().values()),
        )
        return Measured(found, here.diary.recoveries(here.crew.kills))


@contextmanager
def _plain(dose: Dose) -> Iterator[_Plain]:
    folder = Path(tempfile.mkdtemp(prefix="lm-chaos-"))
    (folder / "images").mkdir()
    command = [sys.executable, "-m", "celery", "-A", "tests.chaos.plain_worker", "worker", "--loglevel=INFO"]
    command += [f"--concurrency={PROCESSES}", "--without-gossip", "--without-mingle"]
    try:
        with redis_server() as redis:

            def enlist(log: Path) -> ProcessGroup:
                env = {"PLAIN_BROKER_URL": redis.broker_url, "CHAOS_DIARY": str(folder / "diary")}
                env["POISON_ITEM_S"] = str(ITEM_S)
                return ProcessGroup([*command, f"--hostname={log.stem}@%h"], log=log, env=env)

            with dismissed(Crew(dose["workers"], enlist, folder, ready=" ready.")) as crew:
                crew.wait_ready()
                yield _Plain(redis, folder, crew, dose)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


FAULT = Fault(
    name="kill-plain",
    title=f"the same on plain Celery: acks_late, tasks of {CHUNK} images, visibility_timeout {VISIBILITY_S} s",
    dose={"kills": 100, "images": 20_000, "workers": 4},
    short={"kills": 2, "images": 400, "workers": 3},
    strike=strike,
    tell=tell,
    promises=(given("kills"), given("images")),
    judged=False,
)
