"""Revoked ids are known to every process of a worker."""

from __future__ import annotations

import os
from uuid import uuid4

from celery.utils.collections import LimitedSet

from worker.revoked import Revoked


def test_what_celery_knows_to_be_revoked_is_known_here() -> None:
    ids = LimitedSet(maxlen=100, expires=60)
    before, after, never = (str(uuid4()) for _ in range(3))
    ids.add(before)
    table = Revoked()
    table.follow(ids)
    ids.update([after])
    assert before in table
    assert after in table
    assert never not in table
    assert after in ids


def test_an_id_that_is_revoked_later_is_known_to_a_child_process() -> None:
    table, task_id = Revoked(), str(uuid4())
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        os.read(reading, 1)
        os._exit(0 if task_id in table else 1)
    table.add(task_id)
    os.write(writing, b"!")
    os.close(reading)
    os.close(writing)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
