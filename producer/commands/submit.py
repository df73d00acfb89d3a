"""``labelmill submit``: images in, a job's id out."""

from __future__ import annotations

import argparse
import time
from contextlib import suppress

from jobs.errors import JobError, LabelmillError
from jobs.parser import positive
from jobs.settings import DEFAULT_MODEL
from producer.client import Labelmill
from producer.commands.display import errors_console, job_object, print_json
from producer.commands.options import add_broker, add_json, connect, duration, examples, job_id, pair, webhook
from producer.ids import check_ids
from producer.job import Job
from producer.progress import Watch
from producer.sending import Sender
from producer.sources import Source, open_source

__all__ = ["EXIT_FAILED_ITEMS", "add_arguments", "run"]

#: Exit code where --strict finds a failed item.
EXIT_FAILED_ITEMS = 4
#: Seconds between two updates of the progress.
POLL_S = 0.25
#: Seconds that sending may take to stop when it is interrupted.
STOP_S = 2.0


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of ``submit``."""
    add = parser.add_argument
    add(
        "sources",
        nargs="+",
        metavar="SOURCE",
        help="folder (recursive), file, 'pattern/**/*.jpg', zip or tar, manifest (.txt, .csv, .jsonl), URL, "
        "s3://bucket/prefix, or - for standard input",
    )
    add("--model", metavar="M", help=f"[LABELMILL_MODEL] default: {DEFAULT_MODEL}")
    add("--digest", default="", metavar="SHA256", help="only workers with this very model file; a beginning will do")
    add("--job-id", type=job_id, metavar="ID", help="the same id again is the same job: only what is missing is sent")
    add("--top-k", type=positive, default=5, metavar="K", help="labels for each image; default: 5")
    add(
        "--by",
        choices=("auto", "reference", "value"),
        default="auto",
        help="how images travel: as references that workers read, or as bytes; auto: what workers can read "
        "themselves by reference",
    )
    add("--detach", action="store_true", help="end when all is sent, do not wait for the job's end")
    add("--expires", type=duration, metavar="24h", help="what is queued this long expires [LABELMILL_EXPIRES_S]")
    add("--retention", type=duration, metavar="7d", help="results are kept this long [LABELMILL_RETENTION_S]")
    add("--metadata", type=pair, action="append", default=[], metavar="K=V", help="kept with the job; again for more")
    add("--cache", action="store_true", help="take results of the same bytes from earlier jobs with --cache")
    add(
        "--webhook",
        type=webhook,
        metavar="URL",
        help="called when the job ends [LABELMILL_WEBHOOK_SECRET signs it]",
    )
    add("--chunk-size", type=positive, metavar="N", help="images of one ticket; default: about 100 ms of work")
    add("--force", action="store_true", help="also when no worker serves the model yet")
    add(
        "--strict",
        action="store_true",
        help=f"a bad line of a manifest stops before anything is sent; exit with {EXIT_FAILED_ITEMS} for failed images",
    )
    add_broker(parser)
    add_json(parser, "print the job as JSON at the end, instead of its id at the beginning")
    examples(
        parser,
        "labelmill submit photos/ --model efficientnet-lite0",
        "labelmill submit list.csv --job-id tuesday --detach",
        "labelmill submit s3://bucket/2026/ photos.zip 'more/**/*.png' --metadata owner=ann",
        "find photos -name '*.jpg' | labelmill submit - --detach",
    )


def run(args: argparse.Namespace) -> int:
    """Submit, print the id, and wait for the end unless told not to."""
    watch = Watch(errors_console())
    client = connect(args, say=watch.note)
    model = args.model or client.settings.model_name
    digest = client.full_digest(model, args.digest)
    if not args.force:
        client.served(model, digest)
    bad_lines = _BadLines(watch)
    source = open_source(
        args.sources,
        by=args.by,
        readable=client.readable(model, digest),
        max_bytes=client.settings.max_bytes,
        strict=args.strict,
        on_bad=bad_lines,
    )
    again = bool(args.job_id and client.is_sealed(args.job_id))
    if not again:
        check_ids(source, args.sources)
    job = _open(client, args, model, digest)
    if again:
        watch.note(f"job {job.id} is there already: nothing is sent")
    if not args.json:
        print(job.id, flush=True)
    sender = job.sender(chunk_size=args.chunk_size)
    _send(job, sender, source, watch, detach=args.detach)
    status = job.status()
    if args.json:
        print_json({**job_object(status), "sent": sender.sent, "bad_lines": bad_lines.count})
    return EXIT_FAILED_ITEMS if args.strict and status.request_counts["failed"] else 0


class _BadLines:
    """Names each bad line on stderr, and counts them."""

    def __init__(self, watch: Watch) -> None:
        self.count = 0
        self._watch = watch

    def __call__(self, place: str, reason: str) -> None:
        self.count += 1
        self._watch.note(f"{place}: {reason}: left out")


def _open(client: Labelmill, args: argparse.Namespace, model: str, digest: str) -> Job:
    return client.open(
        model,
        job_id=args.job_id,
        top_k=args.top_k,
        digest=digest,
        metadata=dict(args.metadata),
        expires_s=args.expires,
        retention_s=args.retention,
        cache=args.cache,
        webhook=args.webhook or "",
    )


def _send(job: Job, sender: Sender, source: Source, watch: Watch, *, detach: bool) -> None:
    """Send, and show how far it is; until the job's end, or only until all is sent."""
    with watch, job.sweeping():
        sender.start(source, checked=True)
        try:
            _show(job, sender, watch, detach=detach)
        except BaseException as exc:
            sender.stop()
            # it ends between two chunks, and leaves the job to the next producer at once
            with suppress(LabelmillError):
                sender.join(STOP_S)
            if not isinstance(exc, JobError):  # else it was cancelled or deleted, and nothing goes on
                watch.note(f"job {job.id} is left as it is: the same command with --job-id {job.id} goes on")
            raise


def _show(job: Job, sender: Sender, watch: Watch, *, detach: bool) -> None:
    while True:
        sent = sender.join(POLL_S)
        status = job.status()
        last = sent and (detach or status.ended)
        watch.update(status, last=last, waiting=sender.waiting)
        if last:
            return
        if sent:
            time.sleep(POLL_S)
