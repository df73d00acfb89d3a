"""Which device computes, and how exactly: chosen here, the same way for every runtime. Imports no runtime itself."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Sequence
from typing import TypeVar

from jobs.errors import GoldenSampleError, ModelUnsupportedError
from jobs.settings import DEVICES
from worker.models import golden
from worker.models.card import ModelCard
from worker.models.runtime import Runtime

__all__ = ["DEVICE_VARIABLE", "asked_for", "first_that_is_right", "on_device"]

log = logging.getLogger(__name__)

#: The environment variable that names the device.
DEVICE_VARIABLE = "LABELMILL_DEVICE"

R = TypeVar("R", bound=Runtime)
W = TypeVar("W")


def asked_for(told: str | None) -> str:
    """The device that a command line or the environment names; ``auto`` where neither does."""
    return told or os.environ.get(DEVICE_VARIABLE) or "auto"


def on_device(device: str, load: Callable[[str], R], *, has_cuda: Callable[[], bool], needs: str) -> R:
    """What ``load`` makes for ``cpu`` or ``cuda``.

    ``auto`` is cuda where ``has_cuda`` says so, the model loads there and its golden sample is met, else cpu, with a
    line in the log. ``needs`` says what to install where cuda was asked for by name and is not there.
    Raises :class:`~jobs.errors.ModelUnsupportedError` for such a device, and what ``load`` raises.
    """
    if device not in DEVICES:
        raise ModelUnsupportedError(f"there is no device {device!r}; one of {', '.join(DEVICES)}")
    if device == "cpu" or (device == "auto" and not has_cuda()):
        return load("cpu")
    if device == "auto":
        return _cuda_else_cpu(load)
    if not has_cuda():
        raise ModelUnsupportedError(f"the device 'cuda' cannot be used here: {needs}; or use cpu")
    return load("cuda")


def _cuda_else_cpu(load: Callable[[str], R]) -> R:
    try:
        runtime = load("cuda")
        golden.verify(runtime)
        return runtime
    except (ModelUnsupportedError, GoldenSampleError) as exc:
        log.warning("cuda is here and cannot be used, so the processor computes: %s", exc.message)
    return load("cpu")


def first_that_is_right(ways: Sequence[W], make: Callable[[W], R], card: ModelCard) -> R:
    """The runtime of the first way to compute whose scores meet the card's golden sample.

    ``ways`` are the fastest first, and the last is as exact as the file: it is not compared here but by whoever loads
    a model, and it is the one for a card without a sample, for nothing would say that another is right.
    """
    *hopeful, exact = ways
    for way in hopeful if card.golden is not None else ():
        runtime = make(way)
        try:
            golden.verify(runtime)
        except GoldenSampleError as exc:
            log.info("%s does not compute in %s here: %s", card.name, runtime.precision, exc.message.partition(";")[0])
            continue
        log.info("%s computes in %s on %s: its golden sample is met", card.name, runtime.precision, runtime.device)
        return runtime
    return make(exact)
