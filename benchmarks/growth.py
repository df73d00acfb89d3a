"""What the queue costs as work grows: ours beside the bare loop over images, their size, and the model's size.

python -m benchmarks.growth
python -m benchmarks.growth size --rounds 7
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

from benchmarks.bare import BareLoop
from benchmarks.contest import Contest
from benchmarks.stack import labelmill
from benchmarks.throughput import PHOTO_MODEL, TINY_MODEL, bulk, images
from benchmarks.variants import random_model

#: Photographs of a job.
JOBS = (25, 100, 400, 1600)
#: Kinds of images, and how many of them take a second or two.
SIZES = {"250x188": 800, "500x375": 800, "1000x750": 600, "2000x1500": 300, "4000x3000": 100}
#: Networks of torchvision beside ours, with weights that mean nothing, and how many photographs take some seconds.
NETWORKS = {"mobilenet_v3_small": 1600, "resnet50": 160, "densenet161": 80}


def main() -> None:
    """Print a table for each of what was asked for."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.growth", description=__doc__)
    tables = {"images": over_images, "size": over_size, "model": over_models}
    parser.add_argument("what", nargs="*", metavar="WHAT", help=f"of {', '.join(tables)}; default: all")
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args()
    if unknown := set(args.what) - set(tables):
        parser.error(f"no such table: {', '.join(unknown)}")
    for what in args.what or tables:
        print(f"{what:<28} {'images':>6} {'bare images/s':>13} {'ours images/s':>13} {'ours / bare':>11}")
        for name, count, contest in tables[what](args.rounds):
            bare, ours = (statistics.median(contest.rates[one]) for one in ("bare", "ours"))
            print(
                f"{name:<28} {count:>6} {bare:>13,.1f} {ours:>13,.1f} {contest.ratio('ours', 'bare'):>11.3f}",
                flush=True,
            )
        print()


def over_images(rounds: int) -> Iterator[tuple[str, int, Contest]]:
    """Jobs of few and of many photographs."""
    yield from _beside(PHOTO_MODEL, {f"a job of {count}": images("photo", count) for count in JOBS}, rounds)


def over_size(rounds: int) -> Iterator[tuple[str, int, Contest]]:
    """Photographs of all sizes."""
    yield from _beside(PHOTO_MODEL, {f"{kind} pixels": images(kind, count) for kind, count in SIZES.items()}, rounds)


def over_models(rounds: int) -> Iterator[tuple[str, int, Contest]]:
    """Models of all sizes, the smallest on thumbnails."""
    yield from _beside(TINY_MODEL, {TINY_MODEL: images("tiny", 20_000)}, rounds)
    yield from _beside(PHOTO_MODEL, {PHOTO_MODEL: images("photo", 1600)}, rounds)
    for arch, count in NETWORKS.items():
        yield from _beside(str(random_model(arch)), {arch: images("photo", count)}, rounds)


def _beside(model: str, works: dict[str, tuple[Path, list[Path]]], rounds: int) -> Iterator[tuple[str, int, Contest]]:
    """The bare loop and ours on each of the works."""
    with ExitStack() as stack:
        bare = stack.enter_context(BareLoop(model))
        client = stack.enter_context(labelmill(model))
        name = client.models()[0].name
        for work, (folder, paths) in works.items():
            count = len(paths)
            bare.tune(paths[: max(count // 4, 20)])
            ours = bulk(client, folder, name, count)
            ours()  # chunks are as large as what was measured before says
            contest = Contest()
            contest.run({"bare": lambda count=count, paths=paths: count / bare.run(paths), "ours": ours}, rounds)  # type: ignore[misc]
            yield work, count, contest


if __name__ == "__main__":
    main()
