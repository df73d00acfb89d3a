"""The C library's heap, for runtimes that take their memory from it anew for each batch.

glibc gives memory at the heap's end back to the system as soon as it is free, and maps large blocks apart, so that the
next batch has to be given every page again, cleared. Whether that happens is chance, by what lies at the end.
Measured: ``python -m benchmarks.heap``.
"""

from __future__ import annotations

import ctypes
import os

__all__ = ["keep_freed", "trim"]

#: Parameters of mallopt(3), by glibc's malloc.h.
_TRIM_THRESHOLD, _TOP_PAD, _MMAP_THRESHOLD = -1, -2, -3
#: Bytes that stay when memory is given back, and the free ones from which on it is.
KEPT, MOST = 64 << 20, 128 << 20
#: Bytes from which on a block is mapped apart; glibc takes no larger number.
APART = 32 << 20
#: Environment variables by which an operator tells glibc himself.
TOLD = ("MALLOC_TRIM_THRESHOLD_", "MALLOC_TOP_PAD_", "MALLOC_MMAP_THRESHOLD_")


def keep_freed() -> None:
    """Keep what this process frees, up to :data:`MOST`; nothing changes where the C library is another or was told."""
    library = _glibc()
    if library is None or any(name in os.environ for name in TOLD) or "malloc" in os.environ.get("GLIBC_TUNABLES", ""):
        return
    for parameter, value in ((_TRIM_THRESHOLD, MOST), (_TOP_PAD, KEPT), (_MMAP_THRESHOLD, APART)):
        library.mallopt(parameter, value)


def trim() -> None:
    """Give back all that is free."""
    library = _glibc()
    if library is not None:
        library.malloc_trim(ctypes.c_size_t(0))


def _glibc() -> ctypes.CDLL | None:
    library = ctypes.CDLL(None)
    return library if hasattr(library, "gnu_get_libc_version") else None
