"""Memory that a thread keeps from one image to the next.

What is asked of the system anew for each image has to be mapped and cleared page by page, which takes longer than all
that is computed in it.
"""

from __future__ import annotations

import math
import threading
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["room"]

#: Values of one kind up to which a thread keeps their memory.
KEPT_VALUES = 1 << 20

_rooms = threading.local()


def room(name: str, *shape: int, dtype: Any = np.float32) -> NDArray[Any]:
    """Memory for values of this shape; it holds anything. A ``name`` stands for one use and one type."""
    size = math.prod(shape)
    if size > KEPT_VALUES:
        return np.empty(shape, dtype)
    kept: NDArray[Any] | None = vars(_rooms).get(name)
    if kept is None or kept.size < size:
        kept = np.empty(size, dtype)
        setattr(_rooms, name, kept)
    return kept[:size].reshape(shape)
