"""Memory from one batch to the next: what photographs take where it is kept, and where it comes from the heap anew.

python -m benchmarks.heap
python -m benchmarks.heap --format torchscript --batch 1 4

Processes differ by what lies where in their heaps, so each figure is of several processes, the two ways in turns.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import time
from functools import partial
from pathlib import Path
from resource import RUSAGE_SELF, getrusage

from worker.decode import DecodeLimits, decode_into
from worker.engine import Engine
from worker.export.prepare import prepare
from worker.pace import sample_file

WAYS = {"kept": True, "taken anew": False}
PROCESSES = 8
#: Photographs of a chunk, and chunks that are computed before and while it is measured.
CHUNK, CHUNKS = 14, 8


def main() -> None:
    """Print milliseconds an image, pages of 4 KiB that came anew with it, and MiB of the process at its largest."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.heap", description=__doc__)
    parser.add_argument("--format", choices=("onnx", "torchscript", "torch_export"), default="onnx")
    parser.add_argument("--batch", type=int, nargs="+", default=[1, 2, 4, 8])
    parser.add_argument("--processes", type=int, default=PROCESSES)
    parser.add_argument("--child", nargs=3, help=argparse.SUPPRESS, metavar=("FILE", "BATCH", "WAY"))
    args = parser.parse_args()
    if args.child:
        file, size, way = args.child
        return child(Path(file), int(size), is_kept=WAYS[way])
    model = prepare("efficientnet-lite0", file_format=args.format)
    print(f"{'batch':>5}  {'memory':<10} {'ms an image: fastest, median, slowest process':>46} {'pages':>6} {'MiB':>5}")
    for batch in args.batch:
        found: dict[str, list[list[float]]] = {way: [] for way in WAYS}
        for number in range(args.processes):
            for way, figures in list(found.items())[:: -1 if number % 2 else 1]:
                told = [str(model), str(batch), way]
                command = [sys.executable, "-m", "benchmarks.heap", "--child", *told]
                said = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
                figures.append([float(word) for word in said.split()])
        for way, figures in found.items():
            ms, pages, mib = zip(*figures, strict=True)
            spread = f"{min(ms):.2f} {statistics.median(ms):.2f} {max(ms):.2f}"
            print(f"{batch:>5}  {way:<10} {spread:>46} {statistics.median(pages):>6.0f} {max(mib):>5.0f}")


def child(model: Path, batch: int, *, is_kept: bool) -> None:
    """One process's figures."""
    if not is_kept:
        _forget()
    from worker.models import loader

    runtime = loader.load(model)
    decoder = partial(decode_into, preprocessing=runtime.card.preprocessing, limits=DecodeLimits())
    engine, refs = Engine(runtime, decoder, batch_size=batch), ["any"] * CHUNK
    photo = sample_file(runtime.card.preprocessing)
    for _ in range(CHUNKS):
        engine.run(refs, lambda _: photo, top_k=5)
    before, began = getrusage(RUSAGE_SELF).ru_minflt, time.perf_counter()
    for _ in range(CHUNKS):
        engine.run(refs, lambda _: photo, top_k=5)
    took, pages = time.perf_counter() - began, getrusage(RUSAGE_SELF).ru_minflt - before
    images = CHUNKS * CHUNK
    print(took / images * 1e3, pages / images, _largest_mib())


def _largest_mib() -> float:
    """Of this program; ``ru_maxrss`` may be the one's that started it."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) / 1024


def _forget() -> None:
    """As without the lines that keep memory."""
    import onnxruntime

    from worker.models import heap

    def options() -> onnxruntime.SessionOptions:
        made = usual()
        made.enable_cpu_mem_arena = False
        return made

    usual = onnxruntime.SessionOptions
    onnxruntime.SessionOptions = options
    heap.keep_freed = lambda: None


if __name__ == "__main__":
    main()
