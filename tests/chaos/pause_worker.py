"""SIGSTOP of a worker until its leases have passed; then SIGCONT, and it finishes, too late."""

from __future__ import annotations

import itertools
import random
import time

from tests.chaos.books import close
from tests.chaos.diary import Event
from tests.chaos.figures import NONE_LOST, NONE_TWICE, Dose, Fault, Measured, Promise, given
from tests.chaos.site import Site, site
from tests.support.servers import ProcessGroup, eventually

__all__ = ["FAULT"]

CHUNK = 10
ITEM_S = 0.03
#: Workers that are stopped at the same time.
AT_ONCE = 2
JOB = 1_000


def strike(dose: Dose, rng: random.Random) -> Measured:
    """Stop two of the crew at a time, until the dose is given."""
    pauses = 0
    with site(min(JOB, 300 * dose["pauses"]), chunk=CHUNK, item_s=ITEM_S, workers=dose["workers"]) as here:
        here.top_up()
        while pauses < dose["pauses"]:
            here.top_up()
            time.sleep(rng.uniform(0, 0.5))
            stopped = here.crew.pick(rng, AT_ONCE)
            pauses += sum(held > 0 for held in _stop_past_leases(here, stopped, rng))
        found = close(here)
        found["pauses"] = pauses
        return Measured(found)


def _stop_past_leases(here: Site, workers: list[ProcessGroup], rng: random.Random) -> list[int]:
    """Returns how many chunks each of them had in hand."""
    for worker in workers:
        worker.pause()
    try:
        at = time.monotonic()
        hands = [here.diary.held(worker.pids(), at=at) for worker in workers]
        for claim in itertools.chain(*hands):
            eventually(lambda claim=claim: not _holds(here, claim))  # type: ignore[misc]
        time.sleep(rng.uniform(0, 1.0))  # so that it comes before, amidst and after the next one's finish
    finally:
        for worker in workers:
            worker.resume()
    for claim in itertools.chain(*hands):
        eventually(lambda claim=claim: not here.diary.is_in_hand(claim))  # type: ignore[misc]
    return [len(hand) for hand in hands]


def _holds(here: Site, claim: Event) -> bool:
    """Whether the chunk is still this claim's."""
    holder = here.redis.client.hget("lm:holders", f"{claim.job}|{claim.chunk}")
    return holder == str(claim.more[0]).encode()


def tell(measured: Measured) -> str:
    """In words."""
    found = measured.figures
    return (
        f"{found['pauses']} pauses, {found['images']:,} images: {found['lost']} lost, {found['twice']} recorded "
        f"twice, {found['recomputed']} computed twice; {found['late']} late finishes dropped"
    )


FAULT = Fault(
    name="pause-worker",
    title="SIGSTOP of a worker past its lease, then SIGCONT",
    dose={"pauses": 20, "workers": 4},
    short={"pauses": 2, "workers": 3},
    strike=strike,
    tell=tell,
    promises=(
        given("pauses"),
        *NONE_LOST,
        NONE_TWICE,
        Promise("some finished too late", lambda measured, dose: measured.figures["late"] > 0),
    ),
)
