"""The peers: what is installed for each, how it is run here, and what it leaves undone."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

__all__ = ["CONTENDERS", "IMAGES", "OURS", "Contender"]

#: Images of a run: all that there are of each kind.
IMAGES = {"photo": 400, "tiny": 20_000}
#: Images of *tiny* for those who take longer over each one than the bare loop over ten.
PART = {"photo": 400, "tiny": 2000}
OURS = "labelmill"


@dataclass(frozen=True)
class Contender:
    """One way to classify a list of files.

    ``module`` has ``serve(setup)``, see :mod:`benchmarks.peers.driver`. ``images`` are those of a run; ``batch`` what
    the model is given at once and ``chunk`` what a message carries, at most, by kind of work. ``progress`` says what a
    user can ask while the work runs.
    """

    title: str
    module: str
    requirement: str
    progress: str
    images: Mapping[str, int] = field(default_factory=lambda: IMAGES)
    batch: Mapping[str, int] = field(default_factory=lambda: {"photo": 1, "tiny": 1})
    chunk: Mapping[str, int] = field(default_factory=lambda: {"photo": 1, "tiny": 1})

    @property
    def package(self) -> str:
        """The name of what is installed, without extras and version."""
        return self.requirement.partition("==")[0].partition("[")[0]


#: Beside its name on the command line. What else was tried is said in ``benchmarks/README.md``.
CONTENDERS = {
    OURS: Contender(
        "Labelmill, bulk",
        "labelmill",
        "",
        "counts that add up, at any time, from anywhere",
    ),
    "celery": Contender(
        "plain Celery, one task an image, solo workers",
        "celery",
        "celery==5.7.0",
        "none: every id has to be asked for",
        images=PART,
    ),
    "celery-chunks": Contender(
        "plain Celery, a list of paths in a task, solo workers",
        "celery",
        "celery==5.7.0",
        "none: every id has to be asked for",
        batch={"photo": 4, "tiny": 32},
        chunk={"photo": 16, "tiny": 128},
    ),
    "rq": Contender(
        "RQ, one job an image, a pool of SimpleWorkers",
        "rq",
        "rq==3.0.0",
        "none: every id has to be asked for",
        images=PART,
    ),
    "dramatiq": Contender(
        "Dramatiq, one message an image, 8 threads a process",
        "dramatiq",
        "dramatiq==2.2.1",
        "how many of a group are done",
        images=PART,
    ),
    "mosec": Contender(
        "Mosec, dynamic batching",
        "mosec",
        "mosec==0.9.8",
        "none: a client counts its answers",
        images=PART,
        batch={"photo": 4, "tiny": 32},
    ),
    "litserve": Contender(
        "LitServe, batching",
        "litserve",
        "litserve==0.2.19",
        "none: a client counts its answers",
        images=PART,
        batch={"photo": 4, "tiny": 32},
    ),
    "bentoml": Contender(
        "BentoML, adaptive batching",
        "bentoml",
        "bentoml==1.4.39",
        "none: a client counts its answers",
        images=PART,
        batch={"photo": 4, "tiny": 32},
    ),
    "ray": Contender(
        "Ray Data, map_batches",
        "ray",
        "ray[data]==2.60.0",
        "a bar in the process that waits",
        batch={"photo": 4, "tiny": 32},
        chunk={"photo": 50, "tiny": 512},
    ),
}
