"""kill -9 of a whole worker, at random moments."""

from __future__ import annotations

import random
import time

from tests.chaos.books import close
from tests.chaos.figures import NONE_LOST, NONE_TWICE, Dose, Fault, Measured, Promise, given
from tests.chaos.site import END_S, site
from tests.support.servers import eventually

__all__ = ["CHUNK", "FAULT", "ITEM_S", "PAUSE_S", "tell"]

#: Images of a chunk, and seconds that each takes: plain Celery gets the same.
CHUNK = 10
ITEM_S = 0.03
#: Longest time between two kills.
PAUSE_S = 2.0
#: Images of one job.
JOB = 2_500
#: Seconds from a kill to the claim of what the killed worker held: the median may take so long.
MOST_S = 5.0


def strike(dose: Dose, rng: random.Random) -> Measured:
    """Kill until the dose is given, each when at most one of the crew does not serve, and see how the jobs end."""
    with site(min(JOB, dose["images"] // 3), chunk=CHUNK, item_s=ITEM_S, workers=dose["workers"]) as here:
        here.top_up()
        while len(here.crew.kills) < dose["kills"]:
            time.sleep(rng.uniform(0, PAUSE_S))
            eventually(lambda: here.top_up() and here.open(), what="there is something to do")
            here.crew.kill(here.crew.pick(rng, of=dose["workers"] - 1)[0])
            here.top_up()
        eventually(lambda: here.top_up() >= dose["images"], END_S, what="all images are sent")
        found = close(here)
        found["kills"] = len(here.crew.kills)
        return Measured(found, here.diary.recoveries(here.crew.kills))


def tell(measured: Measured) -> str:
    """In words."""
    found = measured.figures
    return (
        f"{found['kills']} kills, {found['images']:,} images: {found['lost']} lost, {found['twice']} recorded twice, "
        f"{found['recomputed']} computed twice, {measured.recovery()}"
    )


FAULT = Fault(
    name="kill-worker",
    title="kill -9 of a whole worker, images by reference, by blob and by URL",
    dose={"kills": 100, "images": 20_000, "workers": 4},
    short={"kills": 3, "images": 900, "workers": 3},
    strike=strike,
    tell=tell,
    promises=(
        given("kills"),
        given("images"),
        *NONE_LOST,
        NONE_TWICE,
        # timing, for a few kills may all have hit idle workers
        Promise("chunks in hand were claimed again", lambda measured, dose: bool(measured.recoveries_s), True),
        Promise(f"median re-claim at most {MOST_S:g} s", lambda measured, dose: measured.median_s <= MOST_S, True),
    ),
)
