"""Memory that a thread keeps from one image, or one chunk, to the next.

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

#: Values of one kind up to which a thread keeps their memory, where nothing else is said.
KEPT_VALUES = 1 << 20

_rooms = threading.local()


def room(name: str, *shape: int, dtype: Any = np.float32, kept: int = KEPT_VALUES) -> NDArray[Any]:
    """Memory for values of this shape; it holds anything. A ``name`` stands for one use and one type.

    Of more values than ``kept`` it is not kept.
    """
    size = math.prod(shape)
    if size > kept:
        return np.empty(shape, dtype)
    found: NDArray[Any] | None = vars(_rooms).get(name)
    if found is None or found.size < size:
        found = np.empty(size, dtype)
        setattr(_rooms, name, found)
    return found[:size].reshape(shape)
