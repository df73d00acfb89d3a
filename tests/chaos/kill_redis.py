"""kill -9 of a Redis that keeps what it acknowledged, while producers send and workers work."""

from __future__ import annotations

import random
import time

from tests.chaos.books import close
from tests.chaos.figures import NONE_LOST, NONE_TWICE, Dose, Fault, Measured, given, none
from tests.chaos.site import site
from tests.support.servers import eventually

__all__ = ["FAULT"]

CHUNK = 4
ITEM_S = 0.01
JOB = 1_500


def strike(dose: Dose, rng: random.Random) -> Measured:
    """Kill Redis, start it again on the same files, and go on when a chunk was recorded since."""
    with site(min(JOB, 200 * dose["kills"]), chunk=CHUNK, item_s=ITEM_S, workers=dose["workers"], aof=True) as here:
        here.top_up()
        for _ in range(dose["kills"]):
            here.crew.keep_up()
            before = here.diary.count("recorded")
            eventually(lambda before=before: here.diary.count("recorded") > before)  # type: ignore[misc]
            eventually(here.are_known, what="the newest producer has begun")
            time.sleep(rng.uniform(0, 1.0))
            here.redis.kill9()
            time.sleep(rng.uniform(0, 1.0))
            here.redis.start()
            here.top_up()
        found = close(here)
        found.update(kills=dose["kills"], fallen=here.crew.fallen)
        return Measured(found)


def tell(measured: Measured) -> str:
    """In words."""
    found = measured.figures
    return (
        f"{found['kills']} kills, {found['images']:,} images: {found['lost']} lost, {found['twice']} recorded twice, "
        f"{found['recomputed']} computed twice"
    )


FAULT = Fault(
    name="kill-redis",
    title="kill -9 of Redis with AOF (appendfsync always), and restart",
    dose={"kills": 10, "workers": 2},
    short={"kills": 2, "workers": 1},
    strike=strike,
    tell=tell,
    promises=(given("kills"), *NONE_LOST, NONE_TWICE, none("fallen", "every worker lives on")),
)
