"""From names, as they stand on a command line, to a source."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import IO, get_args

from jobs.errors import UsageError
from producer.sources.archives import Archive, is_archive, is_archive_head
from producer.sources.by_value import By, ByValue
from producer.sources.chain import Chain, Urls
from producer.sources.contract import Source
from producer.sources.files import Files
from producer.sources.manifest import Manifest, OnBad, format_of_head, manifest_format
from producer.sources.objects import Objects
from producer.sources.openers import Spooled, is_url

__all__ = ["STDIN", "open_source"]

#: The name of standard input.
STDIN = "-"
#: Bytes that tell an archive or a manifest of standard input.
HEAD_BYTES = 4096


@dataclass(frozen=True)
class _Options:
    alone: bool
    max_bytes: int
    strict: bool
    on_bad: OnBad | None
    stdin: IO[bytes] | None


def open_source(
    names: Sequence[str | os.PathLike[str]],
    *,
    by: By = "auto",
    readable: Callable[[str], bool] = lambda ref: False,
    max_bytes: int = 64 << 20,
    strict: bool = False,
    on_bad: OnBad | None = None,
    stdin: IO[bytes] | None = None,
) -> Source:
    """The images of folders, files, patterns, archives, manifests, URLs, object stores and ``-``.

    ``by``: ``reference`` sends no bytes; ``value`` sends nothing else; ``auto`` sends by reference what ``readable``
    says that workers can read. ``strict`` makes a manifest's bad line an error; ``on_bad(place, reason)`` hears of it.
    Raises :class:`~jobs.errors.SourceError` where there is nothing to read.
    """
    if by not in get_args(By):
        raise UsageError(f"by must be {', '.join(get_args(By))}, not {str(by)[:80]!a}")
    texts = [os.fspath(name) for name in names]
    if texts.count(STDIN) > 1:
        raise UsageError("standard input (-) can be read only once")
    options = _Options(len(texts) == 1, max_bytes, strict, on_bad, stdin)
    plain: list[str] = []
    urls: list[str] = []
    others: list[str] = []
    for name in texts:
        (plain if _is_plain(name) else urls if _is_image_url(name) else others).append(name)
    sources: list[Source] = [Files(plain, among_others=len(plain) < len(texts))] if plain else []
    sources += [Urls(urls)] if urls else []
    sources += [_open(name, options) for name in others]
    if by == "reference":
        _refuse_bytes_only(sources)
    source = sources[0] if len(sources) == 1 else Chain(sources)
    if by == "reference" or isinstance(source, Archive):
        return source
    return ByValue(source, readable=readable if by == "auto" else lambda ref: False, max_bytes=max_bytes)


def _is_plain(name: str) -> bool:
    """A folder, a file or a pattern, and no list or archive of images."""
    if name == STDIN or is_url(name):
        return False
    return not (is_archive(name) or manifest_format(name)) or os.path.isdir(name)


def _is_image_url(name: str) -> bool:
    return name.startswith(("http://", "https://")) and not (is_archive(name) or manifest_format(name))


def _open(name: str, options: _Options) -> Source:
    if name == STDIN:
        return _open_stdin(options)
    if is_archive(name):
        return Archive(name, prefix="" if options.alone else f"{name}/", max_bytes=options.max_bytes)
    if manifest_format(name):
        return Manifest(name, strict=options.strict, on_bad=options.on_bad)
    return Objects(name, alone=options.alone)


def _open_stdin(options: _Options) -> Source:
    open_ = Spooled(options.stdin or sys.stdin.buffer)
    with closing(open_()) as file:
        head = file.read(HEAD_BYTES)
    if is_archive_head(head):
        return Archive("standard input", max_bytes=options.max_bytes, open_=open_)
    return Manifest(
        "standard input",
        format=format_of_head(head),
        strict=options.strict,
        on_bad=options.on_bad,
        open_=open_,
        folder=os.getcwd(),
    )


def _refuse_bytes_only(sources: Sequence[Source]) -> None:
    for source in sources:
        if isinstance(source, Archive):
            raise UsageError(f"{source.name}: what is in an archive can only go by value, not --by reference")
