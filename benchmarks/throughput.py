"""Images/s: ours beside the bare loop, plain Celery and the textbook's way, in rounds."""

from __future__ import annotations

import base64
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from benchmarks.bare import BareLoop
from benchmarks.celery_apps import Calls, celery_workers
from benchmarks.contest import Contest, Goal
from benchmarks.images import make_images
from benchmarks.stack import labelmill
from benchmarks.variants import int8_model, is_int8_recommended, scaled_model
from producer.client import Labelmill

__all__ = ["PHOTO_MODEL", "TINY_MODEL", "bulk", "images", "int8", "large", "photo", "tiny"]

PHOTO_MODEL, TINY_MODEL = "efficientnet-lite0", "cifar10-cnn"
#: The limit: the faster, in each round, of processes that were there before and of new ones, as ours are.
BARE = ("bare", "bare anew")
#: Seconds that the images of a run may take: where they take longer they are halved, so that all parts together take
#: under ten minutes on a slower machine, too.
RUN_S = 4.5
#: Images of a run, photographs at the most.
PHOTOS, TINY, LARGE = 1600, 20_000, 216
#: Of photographs, as shares: those that new processes are given before they are measured, as chunks are as large as was
#: measured, and those of the slowest way.
WARM, FEW = 8, 25
#: Photographs that go one by one: of fewer, the first and the last are too large a share.
SINGLY = 400
#: Tiny images that go one by one, and that new processes are given before; plain Celery, which is that much slower than
#: the bare loop, takes longest for them.
CALLS, SLOWER = 4000, 25


def photo(rounds: int) -> tuple[list[Goal], Contest]:
    """Photographs and EfficientNet-Lite0."""
    contest = Contest()
    best = str(int8_model()) if is_int8_recommended() else PHOTO_MODEL
    with ExitStack() as stack:
        bare = stack.enter_context(_bare(PHOTO_MODEL, images("photo", 400)[1][:120]))
        folder, paths = images("photo", _affordable(PHOTOS, bare.images_per_s))
        names = [str(path) for path in paths[:SINGLY]]
        warm = len(paths) // WARM
        few = [base64.b64encode(path.read_bytes()).decode() for path in paths[: len(paths) // FEW]]
        textbook = stack.enter_context(celery_workers("textbook", PHOTO_MODEL, pool="prefork", warm=few[0]))
        plain = stack.enter_context(celery_workers("plain", PHOTO_MODEL, pool="solo", warm=names[0]))
        for _ in range(rounds):
            with bare.like() as anew, labelmill(PHOTO_MODEL) as client, labelmill(best) as other:
                single = Calls(client.celery, "labelmill.classify", client.settings.broker_url)
                anew.run(paths[:warm])
                single.run(names[:warm])
                for one, model in ((client, PHOTO_MODEL), (other, other.models()[0].name)):
                    bulk(one, paths[:warm], model, warm)()
                contest.run(
                    {
                        "bare": _rate(bare.run, paths),
                        "bare anew": _rate(anew.run, paths),
                        "bulk": bulk(client, folder, PHOTO_MODEL, len(paths)),
                        "single": _rate(single.run, names),
                        "recommended": bulk(other, folder, other.models()[0].name, len(paths)),
                        "plain": _rate(plain.run, names),
                        "textbook": _rate(textbook.run, few),
                    },
                    1,
                )
    return [
        Goal("photo: bulk / bare loop", contest.ratio("bulk", *BARE), 0.98),
        Goal("photo: one call an image / bare loop", contest.ratio("single", *BARE), 0.85),
        Goal("photo: bulk, recommended precision / the textbook's way", contest.ratio("recommended", "textbook"), 5),
    ], contest


def tiny(rounds: int) -> tuple[list[Goal], Contest]:
    """32 x 32 PNGs and a small CNN."""
    folder, paths = images("tiny", TINY)
    contest = Contest()
    with ExitStack() as stack:
        bare = stack.enter_context(_bare(TINY_MODEL, paths[: TINY // 4]))
        calls = _affordable(CALLS, bare.images_per_s / SLOWER)
        names = [str(path) for path in paths[:calls]]
        plain = stack.enter_context(celery_workers("plain", TINY_MODEL, pool="solo", warm=names[0]))
        for _ in range(rounds):
            with bare.like() as anew, labelmill(TINY_MODEL) as client:
                single = Calls(client.celery, "labelmill.classify", client.settings.broker_url, model=TINY_MODEL)
                anew.run(paths[:CALLS])
                single.run(names[: calls // WARM])
                bulk(client, paths[:CALLS], TINY_MODEL, CALLS)()
                contest.run(
                    {
                        "bare": _rate(bare.run, paths),
                        "bare anew": _rate(anew.run, paths),
                        "bulk": bulk(client, folder, TINY_MODEL, len(paths)),
                        "single": _rate(single.run, names),
                        "plain": _rate(plain.run, names),
                    },
                    1,
                )
    return [
        Goal("tiny: bulk / bare loop", contest.ratio("bulk", *BARE), 0.95),
        Goal("tiny: bulk / plain Celery at its best", contest.ratio("bulk", "plain"), 10),
        Goal("tiny: one call an image / plain Celery at its best", contest.ratio("single", "plain"), 2),
    ], contest


def int8(rounds: int) -> tuple[list[Goal], Contest]:
    """Photographs in both precisions."""
    contest = _variants(rounds, "photo", 400, {"float32": PHOTO_MODEL, "int8": int8_model()})
    return [Goal("photo: INT8 / float32", contest.ratio("int8", "float32"), 1.8)], contest


def large(rounds: int) -> tuple[list[Goal], Contest]:
    """Photographs of 12 megapixels, decoded as they are and at a smaller scale."""
    models: dict[str, str | Path] = {"full": PHOTO_MODEL, "scaled": scaled_model()}
    recommended = ("scaled", "full")
    if is_int8_recommended():
        recommended = ("scaled int8", "full int8")
        models |= {"full int8": int8_model(), "scaled int8": int8_model(scaled=True)}
    contest = _variants(rounds, "large", LARGE, models)
    what = "12 megapixels: scaled / full decoding"
    return [
        Goal(f"{what}, float32", contest.ratio("scaled", "full"), 4),
        Goal(f"{what}, recommended precision", contest.ratio(*recommended), 4),
    ], contest


def _variants(rounds: int, kind: str, count: int, models: Mapping[str, str | Path]) -> Contest:
    """Several models on the same images, each with a worker of its own."""
    folder, paths = images(kind, count)
    contest = Contest()
    with ExitStack() as stack:
        contenders = {}
        for name, model in models.items():
            client = stack.enter_context(labelmill(str(model)))
            contenders[name] = bulk(client, folder, client.models()[0].name, len(paths))
        contest.run(contenders, rounds)
    return contest


def bulk(client: Labelmill, what: Path | list[Path], model: str, count: int) -> Callable[[], float]:
    """A run of one bulk job of a folder or files, from submit to the last result in the client; gives images/s."""

    def run() -> float:
        began = time.perf_counter()
        job = client.submit(what, model=model, by="reference")
        done = sum(result.status == "succeeded" for result in job.results())
        took = time.perf_counter() - began
        assert done == count, f"{done} of {count} images succeeded"
        client.ledger.delete(job.id)
        return count / took

    return run


def _affordable(most: int, images_per_s: float) -> int:
    """Images of a run, of which so many are done in a second."""
    count = most
    while count > most // 8 and count > RUN_S * images_per_s:
        count //= 2
    return count


def _rate(run: Callable[[Sequence[Any]], float], what: Sequence[Any]) -> Callable[[], float]:
    """Images/s of what says how many seconds it took."""
    return lambda: len(what) / run(what)


def images(kind: str, count: int) -> tuple[Path, list[Path]]:
    """A folder and its images, each read once, so that they come from memory in every round."""
    folder = make_images(kind, count)
    paths = sorted(path for path in folder.iterdir() if not path.name.startswith("."))
    for path in paths:
        path.read_bytes()
    return folder, paths


@contextmanager
def _bare(model: str, sample: Sequence[Path]) -> Iterator[BareLoop]:
    with BareLoop(model) as loop:
        loop.tune(sample)
        yield loop
