"""``labelmill classify``: a folder of images in, labels out.

With a broker named it uses that Redis and the workers that serve it; without, an embedded pair for as long as it runs.
"""

from __future__ import annotations

import argparse
import io
import os
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console

from jobs.errors import UsageError
from jobs.parser import positive
from jobs.settings import DEFAULT_MODEL, MODEL_SUFFIXES, Settings
from jobs.wording import counted
from producer.client import Job, Labelmill
from producer.embedded import Embedded
from producer.ids import check_ids
from producer.interrupts import interrupt
from producer.outputs import FORMATS, Writer, format_of, open_target, open_writer
from producer.outputs.table import TableWriter
from producer.progress import Watch
from producer.sources import Source, open_source
from producer.sources.manifest import manifest_format
from producer.sources.opening import STDIN

__all__ = ["add_arguments", "run"]

#: Exit code where --strict finds a failed item.
EXIT_FAILED_ITEMS = 4
#: Columns of a table that goes into a pipe.
PIPE_WIDTH = 120
#: Seconds between two updates of the progress while no result comes.
POLL_S = 0.25


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of ``classify``."""
    parser.add_argument(
        "names", nargs="+", metavar="SOURCE", help="folders (recursive) and files; and whatever else submit takes"
    )
    parser.add_argument("--model", metavar="NAME_OR_FILE", help=f"[LABELMILL_MODEL] default: {DEFAULT_MODEL}")
    parser.add_argument("--top-k", type=positive, default=5, metavar="K", help="labels for each image; default: 5")
    parser.add_argument("--format", choices=("table", *FORMATS), help="default: the suffix of --output, else table")
    parser.add_argument(
        "--output", type=Path, metavar="FILE", help="default: stdout; a file appears when it is complete"
    )
    parser.add_argument(
        "--broker", metavar="URL", help="a Redis with workers [LABELMILL_BROKER_URL]; default: embedded"
    )
    parser.add_argument("--concurrency", type=positive, metavar="N", help="processes of the embedded worker")
    parser.add_argument("--table", action="store_true", help="print the table as well as writing --output")
    parser.add_argument("--strict", action="store_true", help=f"exit with {EXIT_FAILED_ITEMS} when an item failed")


def run(args: argparse.Namespace) -> int:
    """Classify, and return the exit code."""
    watch = Watch(Console(stderr=True))
    reach = _Reach()
    source = open_source(args.names, readable=reach, on_bad=lambda place, why: watch.note(f"{place}: {why}: left out"))
    check_ids(source, args.names)
    format = args.format or (args.output and format_of(args.output)) or "table"
    if format == "parquet" and args.output is None and sys.stdout.isatty():
        raise UsageError("Parquet is binary: name a file with --output")
    with _outputs(args, format) as writers, _service(args, watch) as (client, model, pair):
        reach.readable = client.readable(model)
        counts = _classify(client.open(model, top_k=args.top_k), source, writers, watch, pair)
    _summary(watch, counts, args.output)
    return EXIT_FAILED_ITEMS if args.strict and counts["failed"] else 0


@contextmanager
def _outputs(args: argparse.Namespace, format: str) -> Iterator[list[Writer]]:
    """The writers, closed when all went well; a file is thrown away when not."""
    with open_target(args.output) as stream:
        writers: list[Writer] = []
        if format == "table" or args.table:
            text = io.TextIOWrapper(stream, "utf-8", write_through=True) if format == "table" and args.output else None
            writers.append(TableWriter(_console(text), top_k=args.top_k))
        if format != "table":
            has_fields = any(name == STDIN or manifest_format(name) for name in args.names)
            writers.append(open_writer(format, stream, top_k=args.top_k, columns=() if has_fields else None))
        yield writers
        for writer in writers:
            writer.close()
        stream.flush()


def _console(file: io.TextIOWrapper | None) -> Console:
    """A console for tables; its width is fixed where nobody looks at it."""
    tty = file is None and sys.stdout.isatty()
    return Console(file=file, width=None if tty else PIPE_WIDTH)


@contextmanager
def _service(args: argparse.Namespace, watch: Watch) -> Iterator[tuple[Labelmill, str, Embedded | None]]:
    """A client, the name of the model that workers serve for it, and the pair where it is our own."""
    settings = Settings.from_env()
    named = args.model or settings.model
    if args.broker or os.environ.get("LABELMILL_BROKER_URL"):
        client = Labelmill(args.broker, settings=settings, say=watch.note)
        if "/" in named or Path(named).suffix in MODEL_SUFFIXES:
            raise UsageError(f"with a broker, --model is a name that its workers serve, and no file: {named}")
        client.served(named)
        yield client, named, None
        return
    with Embedded(settings, model=named, file_roots=_roots(args.names), concurrency=args.concurrency) as pair:
        model = pair.wait_ready(watch.note)
        yield Labelmill(settings=pair.settings, say=watch.note), model.name, pair


def _roots(names: list[str]) -> list[Path]:
    """What the embedded worker may read: what was named. Anything else goes to it as bytes."""
    return [Path(name).absolute() for name in names if Path(name).exists()]


class _Reach:
    """What workers can read; known only when they are there."""

    def __init__(self) -> None:
        self.readable: Callable[[str], bool] = lambda ref: False

    def __call__(self, ref: str) -> bool:
        return self.readable(ref)


def _classify(job: Job, source: Source, writers: list[Writer], watch: Watch, pair: Embedded | None) -> Counter[str]:
    """Submit in a thread of its own and write results as they come; cancels the job when it is interrupted."""
    beside = _Beside()
    counts: Counter[str] = Counter()
    with watch, job.client.sweeping():
        sender = beside.run(lambda: job.sender().send(source, checked=True))
        if pair:
            beside.run(lambda: beside.watch_over(pair))
        try:
            for _, results in job.pages(wait_s=POLL_S):
                counts.update(result.status for result in results)
                for writer in writers:
                    writer.write(results)
                watch.update(job.status())
            sender.join()
        except BaseException:
            if pair is None:  # else the job goes with its Redis
                job.cancel()
            beside.raise_failure()
            raise
        finally:
            beside.done.set()
        beside.raise_failure()
        watch.update(job.status(), last=True)
    return counts


class _Beside:
    """What runs in threads beside the main one. A failure of theirs interrupts it, wherever it waits."""

    def __init__(self) -> None:
        self.done = threading.Event()
        self._failures: list[BaseException] = []

    def run(self, work: Callable[[], object]) -> threading.Thread:
        """Run it in a thread of its own."""

        def attempt() -> None:
            try:
                work()
            except BaseException as exc:  # noqa: BLE001 - raised again in the main thread
                self._failures.append(exc)
                if not self.done.is_set():
                    interrupt()

        thread = threading.Thread(target=attempt, daemon=True)
        thread.start()
        return thread

    def watch_over(self, pair: Embedded) -> None:
        """Raises :class:`~jobs.errors.ServiceError` when one of the pair ends before we are done."""
        while not self.done.wait(POLL_S):
            pair.check()

    def raise_failure(self) -> None:
        """Raise what went wrong in a thread, if anything did."""
        if self._failures:
            raise self._failures[0]


def _summary(watch: Watch, counts: Counter[str], output: Path | None) -> None:
    parts = [counted(counts.total(), "image"), *(f"{n:,} {status}" for status, n in sorted(counts.items()))]
    watch.note(", ".join(parts) + (f", written to {output}" if output else ""))
