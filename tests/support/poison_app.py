"""The product's own Celery application with images that harm their worker.

    celery -A tests.support.poison_app worker

It serves ``noop``, but fetches and "decodes" each image as for a real model. The first word of a file says what
decoding it does:

    SEGFAULT      read address 0
    EXIT          end the process, as the system does when memory is short
    LOOP          never end
    RAISE         an error that decoding should never raise
    MEMORY 50     keep 50 MiB for ever
    SLEEP 0.5     take so many seconds
    WAIT /x/gate  make /x/gate.begun, and end when /x/gate is there
    MODEL         be decoded, and make the model raise on its batch

All others are good, and take ``POISON_ITEM_S`` seconds each. Loading the model takes ``POISON_SETUP_S``.
``POISON_VISIBILITY_S``: seconds until what a killed worker held comes back.
"""

from __future__ import annotations

import ctypes
import os
import signal
import time
from pathlib import Path
from typing import Any

from billiard.process import current_process

import worker.decode
from jobs.errors import ModelRunError
from tasks import app
from worker.models.noop import NoopRuntime
from worker.models.runtime import Images, Scores

__all__ = ["app"]

ITEM_S = float(os.environ.get("POISON_ITEM_S", "0"))
SETUP_S = float(os.environ.get("POISON_SETUP_S", "0"))
BLACK, RED = 0, 255

_kept: list[bytearray] = []
_init = NoopRuntime.__init__
_predict = NoopRuntime.predict


def _decode_into(data: bytes, out: Images, preprocessing: Any, limits: Any) -> None:
    kind, _, amount = data.partition(b"\n")[0].partition(b" ")
    match kind:
        case b"SEGFAULT":
            ctypes.string_at(0)
        case b"EXIT":
            os.kill(os.getpid(), signal.SIGKILL)
        case b"LOOP":
            while True:
                time.sleep(0.001)
        case b"RAISE":
            raise RuntimeError("decoding went wrong in a way that nobody foresaw")
        case b"MEMORY":
            _kept.append(bytearray(os.urandom(1 << 20) * int(amount)))
        case b"SLEEP":
            time.sleep(float(amount))
        case b"WAIT":
            gate = Path(os.fsdecode(amount))
            Path(f"{gate}.begun").touch()
            while not gate.exists():
                time.sleep(0.001)
        case _:
            time.sleep(ITEM_S)
    out[...] = RED if kind == b"MODEL" else BLACK


def _slow_init(self: NoopRuntime, *args: Any) -> None:
    if current_process().name != "MainProcess":  # there it is only asked for its card
        time.sleep(SETUP_S)
    _init(self, *args)


def _raising_predict(self: NoopRuntime, images: Images) -> Scores:
    if (images == RED).any():
        raise ModelRunError("the model cannot do this one")
    return _predict(self, images)


if "POISON_VISIBILITY_S" in os.environ:
    visibility_s = int(os.environ["POISON_VISIBILITY_S"])
    app.conf.broker_transport_options = {**app.conf.broker_transport_options, "visibility_timeout": visibility_s}
# Before the processes of the pool import worker.warm, which takes both from where they are.
worker.decode.decode_into = _decode_into
NoopRuntime.decodes = True
NoopRuntime.__init__ = _slow_init  # type: ignore[method-assign]
NoopRuntime.predict = _raising_predict  # type: ignore[method-assign]
