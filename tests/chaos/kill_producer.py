"""kill -9 of ``labelmill submit`` in the middle, and then the same command again."""

from __future__ import annotations

import random
from dataclasses import replace

from tests.chaos.books import close
from tests.chaos.figures import NONE_LOST, NONE_TWICE, Dose, Fault, Measured, Promise, given, none
from tests.chaos.site import BY, Site, site
from tests.support.servers import eventually

__all__ = ["FAULT"]

CHUNK = 2
WORKERS = 1


def strike(dose: Dose, rng: random.Random) -> Measured:
    """A job a kill; a producer that was done before its kill is no dose."""
    kills, tries = 0, 0
    with site(dose["images"], chunk=CHUNK, item_s=0.0, workers=WORKERS) as here:
        while kills < dose["kills"]:
            kills += _kill_one(here, BY[tries % len(BY)], rng.randrange(dose["images"] // 2))
            tries += 1
        found = close(here)
        found.update(kills=kills, too_many=found["jobs"] - tries)
        return Measured(found)


def _kill_one(here: Site, by: str, when: int) -> bool:
    """Kill it when the job has more than ``when`` images; returns whether that was in the middle."""
    job = here.submit(by)
    eventually(lambda: _accepted(here, job.id) > when)
    job.submit.kill9()
    was_amidst = 0 < _accepted(here, job.id) < len(here.names)
    again = here.run(job.command)
    assert again.wait() == 0, again.log()
    here.jobs[-1] = replace(job, submit=again)
    return was_amidst


def _accepted(here: Site, job: str) -> int:
    return sum(status.request_counts["total"] for status in here.redis.ledger.statuses([job]))


def tell(measured: Measured) -> str:
    """In words."""
    found = measured.figures
    return (
        f"{found['kills']} kills, {found['jobs']} jobs, {found['images']:,} images: {found['lost']} lost, "
        f"{found['twice']} recorded twice, {found['too_many']} jobs too many"
    )


FAULT = Fault(
    name="kill-producer",
    title="a producer killed in the middle of submitting, then the same command again",
    dose={"kills": 10, "images": 1_500},
    short={"kills": 2, "images": 800},
    strike=strike,
    tell=tell,
    promises=(
        given("kills"),
        *NONE_LOST,
        NONE_TWICE,
        none("too_many", "one job"),
        Promise("every image once", lambda m, dose: m.figures["images"] == dose["images"] * m.figures["jobs"]),
    ),
)
