"""Files that appear whole or not at all."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from jobs.errors import LabelmillError, UsageError

__all__ = ["written_whole"]


@contextmanager
def written_whole(target: Path) -> Iterator[Path]:
    """A path to write to, beside the target and of its suffix; renamed to it when the block ends well.

    Nothing is left of it when the block raises. A plain file takes the target's place in one step, so that a
    reader sees the old one or the new one. Raises :class:`~jobs.errors.UsageError` where nothing can be written; an
    error of ours that names the path names the target instead.
    """
    if target.is_dir():
        raise UsageError(f"cannot write {target}: it is a folder; name a file in it")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=f".{target.stem}-", suffix=target.suffix, dir=target.parent)
    except OSError as exc:
        raise UsageError(f"cannot write {target}: {exc.strerror}; name another place") from exc
    os.close(handle)
    partial = Path(name)
    try:
        yield partial
        # mkstemp makes files for their owner alone; a model is read by workers of other accounts.
        partial.chmod(0o644)
        partial.replace(target)
    except LabelmillError as exc:
        exc.message = exc.message.replace(str(partial), str(target))
        raise
    finally:
        partial.unlink(missing_ok=True)
