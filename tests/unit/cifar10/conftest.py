"""The example of CIFAR-10, imported as its scripts do, and its sample of pictures."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

ROOT = Path(__file__).parents[3]
EXAMPLE = ROOT / "examples" / "cifar10"
#: The first 20 test images of each class, one a row, in their own order; and their labels.
SAMPLE = ROOT / "tests" / "data" / "cifar10-sample.png"
SAMPLE_LABELS = SAMPLE.with_suffix(".json")

Import = Callable[[str], Any]
Split = tuple[NDArray[np.uint8], NDArray[np.int64]]


@pytest.fixture
def example(monkeypatch: pytest.MonkeyPatch) -> Iterator[Import]:
    """Imports a module of the example as its scripts do, and forgets all of them afterwards."""
    monkeypatch.syspath_prepend(str(EXAMPLE))
    yield importlib.import_module
    for path in EXAMPLE.glob("*.py"):
        sys.modules.pop(path.stem, None)


@pytest.fixture
def sample(example: Import) -> Split:
    images, labels = example("data").read_sheets([SAMPLE], SAMPLE_LABELS)
    return images, labels
