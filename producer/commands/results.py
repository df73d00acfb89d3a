"""``labelmill results``: the labels of a job, in a file."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from jobs.errors import UsageError
from jobs.items import Result
from jobs.wording import counted
from producer.commands.display import errors_console, print_json
from producer.commands.options import add_job, connect, examples
from producer.job import Job
from producer.outputs import FORMATS, Writer, format_of, named_format, open_target, open_writer
from producer.outputs.append import APPENDABLE, Appender
from producer.outputs.join import Joined
from producer.outputs.own import free_columns, named_columns
from producer.outputs.sort import InputOrder
from producer.outputs.split import Split
from producer.progress import Watch
from producer.sources import Manifest
from producer.sources.openers import is_url

__all__ = ["add_arguments", "run"]

#: Seconds between two updates of the progress while no result comes.
POLL_S = 0.5
#: What ``--columns`` says to have all of the user's own fields.
ALL = "all"


class _RetriedMeanwhileError(Exception):
    """Results that were written have been retried since: they must be written anew."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of ``results``."""
    add_job(parser)
    add = parser.add_argument
    add("--output", metavar="FILE", help="file or s3://bucket/key; default, and -: stdout")
    add("--errors", metavar="FILE", help="what did not succeed goes here, in the same format, and not into --output")
    add("--format", choices=FORMATS, help="default: the suffix of --output, else jsonl")
    add("--follow", action="store_true", help="go on until the job has ended; can be cut off and taken up again")
    add("--sort", action="store_true", help="in the order of the input")
    add("--columns", metavar="A,B", help="your own fields as columns of csv and parquet; all: all of them")
    add("--join", metavar="MANIFEST", help="add the fields of a manifest, by custom_id")
    examples(
        parser,
        "labelmill results job-1f2e --output labels.jsonl --errors errors.jsonl",
        "labelmill results job-1f2e --follow --output labels.csv --columns all",
        "labelmill results job-1f2e --sort --output s3://bucket/labels.parquet",
    )


@dataclass(frozen=True)
class _Order:
    """What is wanted, checked."""

    job: Job
    output: str | None
    errors: str | None
    format: str
    top_k: int
    made_ms: int
    follow: bool
    sort: bool
    wanted: str
    columns: tuple[str, ...]
    joined: Joined | None

    def page(self, results: list[Result]) -> list[Result]:
        """Results with what is joined to them."""
        return results if self.joined is None else [self.joined(result) for result in results]

    def is_stale(self, skipped: int) -> bool:
        """True where results have been retried that were not passed over when they were read."""
        client = self.job.client
        superseded = client.patience(lambda: client.ledger.superseded(self.job.id))
        return sum(map(len, superseded.values())) > skipped


def run(args: argparse.Namespace) -> int:
    """Write the results there are, or all as they come."""
    watch = Watch(errors_console(), bar=args.follow and args.output not in (None, "-"))
    order = _order(args, connect(args, say=watch.note).job(args.job))
    with watch, ExitStack() as stack:
        if order.follow:
            stack.enter_context(order.job.sweeping())
        written, errors = _write(_with_all_columns(order, watch), watch)
    status = order.job.status()
    watch.note(
        f"{counted(written, 'result')} written to {order.output or 'stdout'}"
        + (f", {counted(errors, 'error')} to {order.errors}" if order.errors else "")
        + ("" if status.ended else f"; job {status.job} goes on: {status.done:,} of {status.request_counts['total']:,}")
    )
    if args.json:
        ended = {"id": status.job, "state": status.state, "format": order.format}
        print_json({**ended, "output": order.output, "written": written, "errors_file": order.errors, "errors": errors})
    return 0


def _order(args: argparse.Namespace, job: Job) -> _Order:
    output = None if args.output == "-" else args.output
    format = args.format or (output and format_of(output)) or "jsonl"
    if output is None:
        if args.json:
            raise UsageError("--json tells what was written: name a file with --output")
        if format == "parquet" and sys.stdout.isatty():
            raise UsageError("Parquet is binary: name a file with --output")
    if args.errors is not None and args.errors == args.output:
        raise UsageError("--errors and --output must be two files")
    if args.errors is not None and not args.format and named_format(args.errors) not in (None, format):
        raise UsageError(f"--errors {args.errors} would be {format}, as the results: say --format to write both so")
    if args.columns is not None and format == "jsonl":
        raise UsageError("--columns is for csv and parquet: in jsonl your fields are under 'fields'")
    wanted = args.columns or ""
    columns = () if wanted == ALL else named_columns(wanted)
    status = job.status()
    flags = (format, status.top_k, status.created_ms, args.follow, args.sort, wanted, columns)
    return _Order(job, output, args.errors, *flags, Joined(Manifest(args.join)) if args.join else None)


def _with_all_columns(order: _Order, watch: Watch) -> _Order:
    """With the columns of the first results, where all are wanted; waits for some where it follows."""
    if order.wanted != ALL:
        return order
    names: list[str] = []
    for _, results in _watched(order.job.pages(wait_s=POLL_S, follow=order.follow), order, watch):
        if results:
            names = [name for result in results for name in result.fields or {}]
            break
    return replace(order, columns=free_columns([*names, *(order.joined.columns if order.joined else ())]))


def _can_grow(name: str) -> bool:
    """True for a file on disk; a device, a pipe or an object is written to once."""
    path = Path(name)
    return name != "-" and not is_url(name) and (path.is_file() or not path.exists())


def _write(order: _Order, watch: Watch) -> tuple[int, int]:
    """Returns how many results and errors were written."""
    files = [name for name in (order.output, order.errors) if name is not None]
    grows = order.format in APPENDABLE and not order.sort and order.output and all(map(_can_grow, files))
    try:
        return _append(order, watch) if order.follow and grows else _whole(order, watch)
    except _RetriedMeanwhileError:
        watch.note("images were retried meanwhile: writing anew")
        return _write(order, watch)


def _append(order: _Order, watch: Watch) -> tuple[int, int]:
    """Into files that grow as results come; a run that was cut off is taken up."""
    paths = Path(str(order.output)), Path(order.errors) if order.errors else None
    appender = Appender(
        order.job.id,
        order.format,
        *paths,
        top_k=order.top_k,
        made_ms=order.made_ms,
        wanted=order.wanted,
        columns=order.columns,
    )
    with appender as out:
        if out.resumed:
            watch.note(f"going on after {sum(out.mark.written):,} results")
        reader = order.job.reader()
        reader.skipped = out.mark.skipped
        for cursor, results in reader.pages(out.mark.cursor, wait_s=POLL_S):
            out.write(cursor, order.page(results), skipped=reader.skipped)
            watch.update(order.job.status())
        out.finish()
    if order.is_stale(reader.skipped):
        raise _RetriedMeanwhileError
    return out.mark.written


def _whole(order: _Order, watch: Watch) -> tuple[int, int]:
    """Into files that appear when they are complete."""
    with ExitStack() as stack:
        writer = _writer(order, stack)
        reader = order.job.reader()
        pages = (
            results
            for _, results in _watched(reader.pages(wait_s=POLL_S, follow=order.follow), order, watch)
            if results
        )
        for results in stack.enter_context(_sorted(order, pages)) if order.sort else pages:
            writer.write(order.page(results))
        if order.output is not None and order.is_stale(reader.skipped):
            raise _RetriedMeanwhileError
        writer.close()
        return writer.written["results"], writer.written["errors"]


def _writer(order: _Order, stack: ExitStack) -> Split:
    def open_(target: str | None) -> Writer:
        stream = stack.enter_context(open_target(target))
        return open_writer(order.format, stream, top_k=order.top_k, columns=order.columns)

    return Split(open_(order.output), open_(order.errors) if order.errors else None)


def _watched(
    pages: Iterator[tuple[str, list[Result]]], order: _Order, watch: Watch
) -> Iterator[tuple[str, list[Result]]]:
    for page in pages:
        yield page
        if order.follow:
            watch.update(order.job.status())


@contextmanager
def _sorted(order: _Order, pages: Iterator[list[Result]]) -> Iterator[Iterator[list[Result]]]:
    ordered = InputOrder(order.job.client.ledger, order.job.id, patience=order.job.client.patience)
    try:
        for results in pages:
            ordered.write(results)
        yield iter(ordered)
    finally:
        ordered.close()
