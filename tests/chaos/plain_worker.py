"""Plain Celery, as well set up as we know how: ``celery -A tests.chaos.plain_worker worker``.

One task classifies a list of images, by path or with their bytes in it. It is acknowledged late; what a killed worker
held comes back when it is older than the visibility timeout, which is looked for each second. The defaults (an hour,
100 s, and 5 minutes until the lock of a worker that was killed while it looked lapses) would not recover within a test.
"""

from __future__ import annotations

import base64
import os
import time
from pathlib import Path

from celery import Celery, Task

from tests.chaos.diary import Diary

__all__ = ["VISIBILITY_S", "app", "classify_all"]

#: Seconds; a task takes a tenth of it at most, and none is fetched ahead.
VISIBILITY_S = 5
ITEM_S = float(os.environ.get("POISON_ITEM_S", "0"))

app = Celery("plain")
app.conf.update(
    broker_url=os.environ.get("PLAIN_BROKER_URL", "memory://"),
    task_ignore_result=True,
    task_acks_late=True,
    task_reject_on_worker_lost=True,
    worker_prefetch_multiplier=1,
    worker_disable_prefetch=True,
    worker_hijack_root_logger=False,
    broker_connection_retry_on_startup=True,
    broker_transport_options={
        "visibility_timeout": VISIBILITY_S,
        "unacked_restore_interval": 1,
        "unacked_restore_throttle": 1,
        "unacked_mutex_expire": VISIBILITY_S,
    },
)


@app.task(bind=True)  # type: ignore[untyped-decorator]
def classify_all(self: Task, images: list[str], by: str) -> None:
    """Each image takes its time; the diary stands for what a real task would store."""
    diary, chunk = _diary(), self.request.id
    pictures = [base64.b64decode(image) if by == "value" else Path(image).read_bytes() for image in images]
    names = [picture.decode().split()[-1] for picture in pictures]
    diary.write("claimed", "", chunk, chunk, names)
    for name in names:
        time.sleep(ITEM_S)
        diary.write("computed", "", chunk, name)
    diary.write("recorded", "", chunk, chunk)


def _diary() -> Diary:
    if not _diaries:
        _diaries.append(Diary(os.environ["CHAOS_DIARY"]))
    return _diaries[0]


_diaries: list[Diary] = []
