"""How a server is asked for an image, by workers and producers alike: what its status means, and when to ask again."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from typing import TypeVar

from jobs.errors import FetchFailedError, ForbiddenError, InvalidItemError, ItemError, NotFoundError

__all__ = ["ATTEMPTS", "FIRST_WAIT_S", "retry", "status_error"]

T = TypeVar("T")

#: Times one image is asked for when the fault may pass, and the longest wait before the second, in seconds.
ATTEMPTS, FIRST_WAIT_S = 4, 0.2
#: Answers after which the same request may succeed; so may all from 500 on.
_TRY_AGAIN = frozenset({408, 425, 429})
_KINDS: dict[int, type[ItemError]] = {
    401: ForbiddenError,
    403: ForbiddenError,
    404: NotFoundError,
    410: NotFoundError,
}


def status_error(status: int) -> type[ItemError]:
    """The error that an HTTP status other than 200 stands for."""
    if status >= 500 or status in _TRY_AGAIN:
        return FetchFailedError
    return _KINDS.get(status, InvalidItemError)


def retry(
    call: Callable[[], T],
    *,
    until: float = float("inf"),
    attempts: int = ATTEMPTS,
    sleep: Callable[[float], None] = time.sleep,
) -> T:
    """The call's answer; a transient :class:`~jobs.errors.ItemError` is tried again while there is time.

    ``until``: of ``time.monotonic()``. The waits double, and each is cut to a random part of at least half, so that
    those who failed together do not come back together.
    """
    for attempt in range(attempts):
        wait = FIRST_WAIT_S * 2**attempt * random.uniform(0.5, 1.0)
        try:
            return call()
        except ItemError as exc:
            if not exc.transient or attempt == attempts - 1 or time.monotonic() + wait >= until:
                raise
        sleep(wait)
    raise ValueError("attempts must be at least 1")
