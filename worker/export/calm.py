"""torch's threads while exporting."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

__all__ = ["one_thread"]


@contextmanager
def one_thread() -> Iterator[None]:
    """One thread inside, the former number after.

    Comparing runs small batches one after the other. Threads that wait for a busy core make that slower by a lot:
    DenseNet-161 on a loaded 2-core machine took 1.8 s an image with two threads and 0.25 s with one.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
