"""Images that end their processes, each in its own way."""

from __future__ import annotations

import math
import random
from collections import Counter

from tests.chaos.books import close
from tests.chaos.figures import NONE_LOST, NONE_TWICE, Dose, Fault, Measured, Promise, given, none
from tests.chaos.site import Site, site
from tests.support.cli import labelmill

__all__ = ["FAULT"]

CHUNK = 16
ITEM_S = 0.002
WORKERS = 2
#: What decoding an image does, and the error code it must end with. EXIT is the kernel's way when memory is short.
KINDS = {"SEGFAULT": "crashed_worker", "EXIT": "crashed_worker", "LOOP": "time_limit", "RAISE": "model_error"}
TIME_LIMIT_S = 1
#: Deliveries of a poison image at most: twice with its chunk, once with each half, twice alone.
MOST = 4 + round(math.log2(CHUNK))


def strike(dose: Dose, rng: random.Random) -> Measured:
    """One job by reference with poison at random places."""
    places = rng.sample(range(dose["images"]), dose["poison"])
    kinds = {place: list(KINDS)[number % len(KINDS)] for number, place in enumerate(places)}
    ends = {f"{place:05}.jpg": KINDS[kind] for place, kind in kinds.items()}
    env = {"LABELMILL_CHUNK_TIME_LIMIT_S": str(TIME_LIMIT_S)}
    with site(dose["images"], chunk=CHUNK, item_s=ITEM_S, workers=WORKERS, kinds=kinds, env=env) as here:
        here.submit("reference")
        found = close(here, ends)
        deliveries = here.diary.times_delivered()
        found["poison"] = len(ends)
        found["astray"] = len(ends) - sum(_letters(here)[name, code] for name, code in ends.items())
        return Measured(found, most_deliveries=max(deliveries.values()))


def _letters(here: Site) -> Counter[tuple[str, str]]:
    """(image, code) of each dead letter that names its image's file."""
    listed = labelmill(here.redis, "dead-letters", "list", "job-0", "--json").json
    return Counter(
        (one["custom_id"], one["code"]) for one in listed if one["reference"] == str(here.images / one["custom_id"])
    )


def tell(measured: Measured) -> str:
    """In words."""
    found = measured.figures
    return (
        f"{found['images']:,} images: {found['poison']} failed with their codes, {found['wrong']} wrong, "
        f"{found['lost']} lost, {found['poison'] - found['astray']} dead letters, at most "
        f"{measured.most_deliveries} deliveries"
    )


FAULT = Fault(
    name="poison",
    title="poison images: segmentation fault, SIGKILL, endless loop, an error nobody foresaw",
    dose={"poison": 20, "images": 5_000},
    short={"poison": 4, "images": 160},
    strike=strike,
    tell=tell,
    promises=(
        given("poison"),
        given("images"),
        *NONE_LOST,
        NONE_TWICE,
        none("astray", "a dead letter for each"),
        Promise(f"at most {MOST} deliveries", lambda m, dose: 0 < m.most_deliveries <= MOST),
    ),
)
