"""Files that grow while a job runs, and whose writer may be killed at any moment and go on later.

Beside the output stands ``.<name>.labelmill``, which says up to which result the files are complete and how long they
were then. It is replaced by rename, after the lines are in the files; who takes up the work cuts off what lies
behind. It goes when the output is complete.
"""

from __future__ import annotations

import fcntl
import io
import math
import os
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import IO

import orjson

from jobs.errors import UsageError
from jobs.items import Result
from producer.outputs import open_writer
from producer.outputs.split import Split
from producer.outputs.target import FileOnDisk

__all__ = ["APPENDABLE", "Appender", "Mark"]

#: Formats that can be appended to.
APPENDABLE = ("jsonl", "csv")
#: Seconds between two marks at the most often: each costs two fsyncs.
MARK_EVERY_S = 1.0


@dataclass(frozen=True)
class Mark:
    """Up to where the files are complete.

    ``made_ms`` is when the job was made: another one may have its id by now. ``wanted`` are the columns as they were
    asked for. ``skipped``: results that had been retried when they were read.
    """

    job: str
    made_ms: int
    format: str
    top_k: int
    wanted: str
    columns: tuple[str, ...]
    files: tuple[str, ...]
    cursor: str = "0-0"
    sizes: tuple[int, ...] = ()
    written: tuple[int, int] = (0, 0)
    skipped: int = 0


class Appender:
    """Writes pages of results with their cursors. Use it as a context: what is complete at its end is marked.

    ``columns`` are what ``wanted`` came to; what was begun with others for the same words goes on with those. Raises
    :class:`UsageError` where another process writes this output, or where it was begun for something else.
    """

    def __init__(
        self,
        job: str,
        format: str,
        output: Path,
        errors: Path | None,
        *,
        top_k: int,
        made_ms: int = 0,
        wanted: str = "",
        columns: Sequence[str] = (),
    ) -> None:
        self._paths = [output, *([errors] if errors else [])]
        self._state = output.with_name(f".{output.name}.labelmill")
        files = tuple(str(path.absolute()) for path in self._paths)
        fresh = Mark(job, made_ms, format, top_k, wanted, tuple(columns), files, sizes=(0,) * len(files))
        self.mark = self._resumed(fresh)
        self._streams: list[IO[bytes]] = []
        self._marked_at = -math.inf

    @property
    def resumed(self) -> bool:
        """True where an earlier run had written something."""
        return self.mark.cursor != "0-0"

    def __enter__(self) -> Appender:
        for path, size in zip(self._paths, self.mark.sizes, strict=True):
            self._streams.append(_open_at(path, size))
        self._save()
        mark = self.mark
        writers = [
            open_writer(mark.format, stream, top_k=mark.top_k, columns=mark.columns, header=size == 0)
            for stream, size in zip(self._streams, mark.sizes, strict=True)
        ]
        self._split = Split(*writers)
        self._before = mark.written
        return self

    def __exit__(self, *exc: object) -> None:
        for stream in self._streams:
            stream.close()

    def write(self, cursor: str, results: list[Result], *, skipped: int) -> None:
        """Append a page; ``skipped`` counts all results so far that were passed over because they were retried."""
        self._split.write(results)
        written = self._split.written
        total = (self._before[0] + written["results"], self._before[1] + written["errors"])
        self.mark = replace(self.mark, cursor=cursor, skipped=skipped, written=total)
        if time.monotonic() >= self._marked_at + MARK_EVERY_S:
            self.save()

    def save(self) -> None:
        """Mark what is written as complete."""
        for stream in self._streams:
            stream.flush()
            os.fsync(stream.fileno())
        self.mark = replace(self.mark, sizes=tuple(stream.tell() for stream in self._streams))
        self._save()
        self._marked_at = time.monotonic()

    def finish(self) -> None:
        """The output is complete: the mark goes."""
        self._split.close()
        self.save()
        self._state.unlink()

    def _resumed(self, fresh: Mark) -> Mark:
        try:
            raw = orjson.loads(self._state.read_bytes())
            tuples = {name: tuple(raw[name]) for name in ("columns", "files", "sizes", "written")}
            mark = Mark(**(raw | tuples))
        except FileNotFoundError:
            return fresh
        except (OSError, orjson.JSONDecodeError, KeyError, TypeError) as exc:
            raise UsageError(f"{self._state} cannot be read ({exc}): remove it to begin anew") from None
        if any(getattr(mark, name) != getattr(fresh, name) for name in ("job", "format", "top_k", "wanted", "files")):
            columns = f" with --columns {mark.wanted}" if mark.wanted else ""
            raise UsageError(
                f"{self._paths[0]} was begun for job {mark.job} as {mark.format}{columns} into "
                f"{', '.join(mark.files)}: go on with that, name another file, or remove {self._state}"
            )
        if mark.made_ms != fresh.made_ms:
            raise UsageError(
                f"{self._paths[0]} was begun for an earlier job {mark.job}: name another file, or remove {self._state}"
            )
        return mark

    def _save(self) -> None:
        temporary = self._state.with_name(f"{self._state.name}.new")
        try:
            self._state.parent.mkdir(parents=True, exist_ok=True)
            temporary.write_bytes(orjson.dumps(asdict(self.mark)))
            os.replace(temporary, self._state)
        except OSError as exc:
            raise UsageError(f"cannot write {self._state}: {exc.strerror}") from None


def _open_at(path: Path, size: int) -> IO[bytes]:
    """The file, cut to what is complete, for writing behind it; locked, so that nobody else does."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        stream = io.BufferedRandom(FileOnDisk(os.open(path, os.O_RDWR | os.O_CREAT, 0o666), path, "r+"))
    except OSError as exc:
        raise UsageError(f"cannot write {path}: {exc.strerror}") from None
    try:
        fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        stream.close()
        raise UsageError(f"{path} is being written by another process") from None
    if os.fstat(stream.fileno()).st_size < size:
        stream.close()
        raise UsageError(f"{path} is shorter than it was when it was left: remove it and its .labelmill to begin anew")
    stream.truncate(size)
    stream.seek(size)
    return stream
