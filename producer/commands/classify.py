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
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console

from jobs.errors import SourceError, UsageError
from jobs.settings import DEFAULT_MODEL, Settings
from producer.client import Job, Labelmill
from producer.embedded import Embedded
from producer.outputs import FORMATS, Writer, format_of, open_target, open_writer
from producer.outputs.table import TableWriter
from producer.progress import Watch
from producer.sources import Files

__all__ = ["add_arguments", "run"]

#: Exit code where --strict finds a failed item.
EXIT_FAILED_ITEMS = 4
#: Columns of a table that goes into a pipe.
PIPE_WIDTH = 120
#: Seconds between two updates of the progress while no result comes.
POLL_S = 0.25


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of ``classify``."""
    parser.add_argument("names", nargs="+", metavar="DIR_OR_FILE", help="folders (recursive) and files")
    parser.add_argument("--model", metavar="NAME_OR_FILE", help=f"[LABELMILL_MODEL] default: {DEFAULT_MODEL}")
    parser.add_argument("--top-k", type=_positive, default=5, metavar="K", help="labels for each image; default: 5")
    parser.add_argument("--format", choices=("table", *FORMATS), help="default: the suffix of --output, else table")
    parser.add_argument(
        "--output", type=Path, metavar="FILE", help="default: stdout; a file appears when it is complete"
    )
    parser.add_argument(
        "--broker", metavar="URL", help="a Redis with workers [LABELMILL_BROKER_URL]; default: embedded"
    )
    parser.add_argument("--concurrency", type=_positive, metavar="N", help="processes of the embedded worker")
    parser.add_argument("--table", action="store_true", help="print the table as well as writing --output")
    parser.add_argument("--strict", action="store_true", help=f"exit with {EXIT_FAILED_ITEMS} when an item failed")


def run(args: argparse.Namespace) -> int:
    """Classify, and return the exit code."""
    source = Files(args.names)
    if next(iter(source), None) is None:
        raise SourceError(f"no images found in {', '.join(args.names)}")
    format = args.format or (args.output and format_of(args.output)) or "table"
    if format == "parquet" and args.output is None and sys.stdout.isatty():
        raise UsageError("Parquet is binary: name a file with --output")
    watch = Watch(Console(stderr=True))
    with _outputs(args, format) as writers, _service(args, source, watch) as (client, model):
        counts = _classify(client.open(model, top_k=args.top_k), source, writers, watch)
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
            writers.append(open_writer(format, stream, top_k=args.top_k))
        yield writers
        for writer in writers:
            writer.close()
        stream.flush()


def _console(file: io.TextIOWrapper | None) -> Console:
    """A console for tables; its width is fixed where nobody looks at it."""
    tty = file is None and sys.stdout.isatty()
    return Console(file=file, width=None if tty else PIPE_WIDTH)


@contextmanager
def _service(args: argparse.Namespace, source: Files, watch: Watch) -> Iterator[tuple[Labelmill, str]]:
    """A client and the name of the model that workers serve for it."""
    settings = Settings.from_env()
    named = args.model or settings.model
    if args.broker or os.environ.get("LABELMILL_BROKER_URL"):
        client = Labelmill(args.broker, settings=settings, say=watch.note)
        client.served(named)
        yield client, named
        return
    with Embedded(settings, model=named, file_roots=source.roots, concurrency=args.concurrency) as pair:
        model = pair.wait_ready()
        yield Labelmill(settings=pair.settings, say=watch.note), model.name


def _classify(job: Job, source: Files, writers: list[Writer], watch: Watch) -> Counter[str]:
    """Submit in a thread of its own and write results as they come; cancels the job when it is interrupted."""
    failures: list[BaseException] = []

    def send() -> None:
        try:
            job.send(source)
        except BaseException as exc:  # noqa: BLE001 - raised again in the main thread
            failures.append(exc)

    sender = threading.Thread(target=send, name="sender", daemon=True)
    counts: Counter[str] = Counter()
    with watch, job.client.sweeping():
        sender.start()
        try:
            for _, results in job.pages(wait_s=POLL_S):
                counts.update(result.status for result in results)
                for writer in writers:
                    writer.write(results)
                watch.update(job.status())
                if failures:
                    raise failures[0]
        except BaseException:
            job.cancel()
            raise
        sender.join()
        watch.update(job.status(), last=True)
    return counts


def _summary(watch: Watch, counts: Counter[str], output: Path | None) -> None:
    parts = [f"{counts.total()} images", *(f"{n} {status}" for status, n in sorted(counts.items()))]
    watch.note(", ".join(parts) + (f", written to {output}" if output else ""))


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise ValueError
    return number
