"""SIGTERM, as a rolling restart does: nothing is lost, and nothing done twice."""

from __future__ import annotations

import random
import sys
import time

from tests.chaos.books import close
from tests.chaos.figures import NONE_LOST, NONE_TWICE, Dose, Fault, Measured, given, none
from tests.chaos.site import site

__all__ = ["FAULT"]

CHUNK = 10
ITEM_S = 0.02
JOB = 1_500


def strike(dose: Dose, rng: random.Random) -> Measured:
    """Restart half of the crew at a time, until the dose is given."""
    restarts, hard = 0, 0
    with site(min(JOB, 20 * dose["restarts"]), chunk=CHUNK, item_s=ITEM_S, workers=dose["workers"]) as here:
        here.top_up()
        while restarts < dose["restarts"]:
            time.sleep(rng.uniform(0, 1.0))
            leaving = here.crew.pick(rng, dose["workers"] // 2, of=dose["workers"] - 1)
            for worker in leaving:
                worker.terminate()
                here.crew.replace(worker)
            for worker in leaving:
                if code := worker.wait():
                    hard += 1
                    print(f"a worker ended with {code}:\n{worker.log()}", file=sys.stderr)
            restarts += len(leaving)
            here.top_up()
        found = close(here)
        found.update(restarts=restarts, hard=hard)
        return Measured(found)


def tell(measured: Measured) -> str:
    """In words."""
    found = measured.figures
    return (
        f"{found['restarts']} restarts, {found['images']:,} images: {found['lost']} lost, "
        f"{found['twice']} recorded twice, {found['recomputed']} computed twice"
    )


FAULT = Fault(
    name="restart-worker",
    title="SIGTERM, rolling restarts",
    dose={"restarts": 50, "workers": 4},
    short={"restarts": 3, "workers": 2},
    strike=strike,
    tell=tell,
    promises=(
        given("restarts"),
        *NONE_LOST,
        NONE_TWICE,
        none("recomputed", "0 computed twice"),
        none("hard", "every worker ends by itself, in time"),
    ),
)
