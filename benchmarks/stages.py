"""Where the time of one image goes: processor time of each process that has to do with it, and of each stage.

python -m benchmarks.stages photo
python -m benchmarks.stages tiny --rounds 7
python -m benchmarks.stages photo --calls
python -m benchmarks.stages photo --small
"""

from __future__ import annotations

import argparse
import os
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

import psutil

from benchmarks.bare import TOP_K, BareLoop
from benchmarks.celery_apps import Calls
from benchmarks.stack import labelmill
from benchmarks.throughput import PHOTO_MODEL, TINY_MODEL, bulk, images
from producer.client import Labelmill
from worker.decode import DecodeLimits, decode_into
from worker.engine import Engine
from worker.fetch import Fetcher
from worker.models import loader

#: What is measured: its model, and how many images.
WORK = {"photo": (PHOTO_MODEL, 800), "tiny": (TINY_MODEL, 20_000)}
#: Images of a run of calls at the most.
CALLS = 2000
#: Images that the stages are timed on.
SAMPLE = 400
#: Images of small jobs, and how many of these are timed.
SMALL, JOBS = (6, 20), 21

Processes = Mapping[str, Sequence[psutil.Process]]


def main() -> None:
    """Measure, and print microseconds of processor time for each image."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.stages", description=__doc__)
    parser.add_argument("work", choices=sorted(WORK))
    other = parser.add_mutually_exclusive_group()
    other.add_argument("--calls", action="store_true", help="one call an image, instead of a bulk job")
    other.add_argument("--small", action="store_true", help="how long small jobs take, instead")
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args()
    model, many = WORK[args.work]
    folder, paths = images(args.work, many)
    if args.small:
        return small(model, folder, paths)
    count = min(many, CALLS) if args.calls else many
    paths = paths[:count]
    with BareLoop(model) as bare:
        bare.tune(paths[: max(count // 4, 200)])
        stages(model, paths[:SAMPLE], bare.batch_size)
        loop = {"the bare loop": [psutil.Process(pid) for pid in bare.pids]}
        with labelmill(model) as client:
            ours = _ours(loop["the bare loop"])
            run = _calls(client, model, paths) if args.calls else bulk(client, folder, model, count)
            run()
            ratios, spent = [], []
            for _ in range(args.rounds):
                seconds, of_loop = _spent(loop, lambda: bare.run(paths))
                rate, of_ours = _spent(ours, run)
                ratios.append(rate * seconds / count)
                spent.append({**of_loop, **of_ours})
    for name in spent[0]:
        each = statistics.median(figures[name] for figures in spent) / count
        print(f"{name:28}{each * 1e6:10.1f} us of processor time an image")
    print(f"{'calls / bare loop' if args.calls else 'bulk / bare loop':28}{statistics.median(ratios):10.3f}")


def stages(model: str, paths: Sequence[Path], batch_size: int) -> None:
    """Print what each stage of the engine takes, alone in this process."""
    runtime = loader.load(model)
    preprocessing, limits = runtime.card.preprocessing, DecodeLimits()
    engine = Engine(runtime, lambda data, out: decode_into(data, out, preprocessing, limits), batch_size=batch_size)
    refs = [str(path) for path in paths]
    fetcher = Fetcher(file_roots=[paths[0].parent])
    engine.run(refs[:batch_size], fetcher.fetch, top_k=TOP_K)
    began = time.perf_counter()
    spent = engine.run(refs, fetcher.fetch, top_k=TOP_K).spent
    rest = time.perf_counter() - began - spent.fetch_s - spent.decode_s - spent.predict_s
    found = {"read": spent.fetch_s, "decode": spent.decode_s, "predict": spent.predict_s, "rank, and the rest": rest}
    for name, seconds in found.items():
        print(f"{'  ' + name:28}{seconds / len(refs) * 1e6:10.1f} us alone in one process, batches of {batch_size}")


def small(model: str, folder: Path, paths: Sequence[Path]) -> None:
    """Print what small jobs take, from submit to the last result."""
    with labelmill(model) as client:
        bulk(client, folder, model, len(paths))()  # so that it is known how fast the workers are under load
        for few in SMALL:
            run = bulk(client, list(paths[:few]), model, few)
            seconds = few / statistics.median(run() for _ in range(JOBS))
            print(f"{f'a job of {few} images':28}{seconds * 1e3:10.1f} ms")


def _calls(client: Labelmill, model: str, paths: Sequence[Path]) -> Callable[[], float]:
    """A run of one call an image; gives images/s."""
    single = Calls(client.celery, "labelmill.classify", client.settings.broker_url, model=model)
    names = [str(path) for path in paths]
    return lambda: len(names) / single.run(names)


def _ours(others: Sequence[psutil.Process]) -> Processes:
    known = {process.pid for process in others}
    started = [p for p in psutil.Process().children() if p.pid not in known]
    workers = [p for p in started if "worker" in p.cmdline()]
    return {
        "ours: processes of the pool": [child for worker in workers for child in worker.children()],
        "ours: main process": workers,
        "ours: Redis": [p for p in started if "redis" in p.name()],
        "ours: client": [psutil.Process(os.getpid())],
    }


def _spent(of: Processes, run: Callable[[], float]) -> tuple[float, dict[str, float]]:
    """What ``run`` gives, and the seconds of processor time that each group took meanwhile."""
    before = {name: _seconds(group) for name, group in of.items()}
    answer = run()
    return answer, {name: _seconds(group) - before[name] for name, group in of.items()}


def _seconds(group: Sequence[psutil.Process]) -> float:
    """As the kernel's scheduler counts, thread by thread: the usual figures are in steps of 10 ms."""
    spent = 0
    for process in group:
        for path in Path(f"/proc/{process.pid}/task").glob("*/schedstat"):
            with suppress(FileNotFoundError, ProcessLookupError):  # a thread that has just ended
                spent += int(path.read_text().split()[0])
    return spent / 1e9


if __name__ == "__main__":
    main()
