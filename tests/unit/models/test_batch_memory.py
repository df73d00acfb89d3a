"""Memory from one batch to the next: it is kept while batches are alike, and given back when larger ones are over.

Each is looked at in a process of its own, for what the heap does depends on all that was in it before.
"""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from worker.export.prepare import prepare
from worker.models.noop import NoopRuntime
from worker.pace import predicting

#: Pages of 4 KiB that a prediction may be given anew; 12,000 to 100,000 are where nothing is kept.
FEW_PAGES = 3000

PREDICT = """
import resource, sys
import numpy as np
from worker.models import loader

def pages():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt

runtime, images = loader.load(sys.argv[1]), np.zeros((int(sys.argv[2]), 224, 224, 3), np.uint8)
runtime.predict(images), runtime.predict(images)
before = pages()
for _ in range(3):
    runtime.predict(images)
print((pages() - before) // 3)
"""

SHRINK = """
import os, sys
import numpy as np
from worker.models import loader

def resident_mib():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE") >> 20

runtime = loader.load(sys.argv[1])
runtime.predict(np.zeros((1, 224, 224, 3), np.uint8))
small = resident_mib()
runtime.predict(np.zeros((32, 224, 224, 3), np.uint8))
large = resident_mib()
runtime.shrink()
print(large - small, resident_mib() - small)
"""


def said(program: str, file_format: str, *arguments: str, **env: str) -> list[int]:
    model = prepare("efficientnet-lite0", file_format=file_format)  # type: ignore[arg-type]
    command = [sys.executable, "-c", program, str(model), *arguments]
    usual = {name: value for name, value in os.environ.items() if not name.startswith(("MALLOC_", "GLIBC_"))}
    done = subprocess.run(command, capture_output=True, text=True, env={**usual, **env}, check=True)
    return [int(word) for word in done.stdout.split()]


# what torch takes comes from glibc, which maps blocks of 32 MiB and more apart in any case
@pytest.mark.parametrize(("file_format", "batch"), [("onnx", "8"), ("torchscript", "4"), ("torch_export", "4")])
def test_a_batch_is_computed_in_the_memory_of_the_last_one(file_format: str, batch: str) -> None:
    (pages,) = said(PREDICT, file_format, batch)

    assert pages < FEW_PAGES


@pytest.mark.parametrize(
    "told", [{"MALLOC_MMAP_THRESHOLD_": "65536"}, {"GLIBC_TUNABLES": "glibc.malloc.mmap_threshold=65536"}]
)
def test_an_operator_who_tells_glibc_is_obeyed(told: dict[str, str]) -> None:
    (pages,) = said(PREDICT, "torchscript", "4", **told)

    assert pages > FEW_PAGES


@pytest.mark.parametrize("file_format", ["onnx", "torchscript"])
def test_what_a_larger_batch_needed_can_be_given_back(file_format: str) -> None:
    needed, left = said(SHRINK, file_format)

    assert needed > 30
    assert left < needed / 4


def test_what_batches_needed_that_were_only_tried_is_given_back() -> None:
    class Counted(NoopRuntime):
        shrunk = 0

        def shrink(self) -> None:
            self.shrunk += 1

    runtime = Counted()
    predicting(runtime, seconds=0.01)

    assert runtime.shrunk == 1
