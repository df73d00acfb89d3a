"""The process that decodes, with what is compiled of decoding under GCC's sanitizers: a byte out of place ends it.

    python -m tests.fuzz.sanitized LIBRARY FORMAT SEED FIRST COUNT STATE_FILE

Every buffer is of the size that was asked for, and nothing more, so that the first byte behind it is noticed.
"""

from __future__ import annotations

import struct
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tests.fuzz import child
from worker import kernels

__all__ = ["build", "command", "use"]

ROOT = Path(__file__).parents[2]
SOURCES = ("worker/resample.c", "worker/eighth.c", "worker/unfilter.c")
FLAGS = ("-O1", "-g", "-shared", "-fPIC", "-fsanitize=address,undefined", "-fno-sanitize-recover=undefined")
#: Python itself leaks what it keeps to its end, and what was freed is held back for a while, which looks like growth.
OPTIONS = "detect_leaks=0:quarantine_size_mb=4"
#: The marker of a baseline frame; precision, height and width follow its length.
FRAME = b"\xff\xc0"


def build(folder: Path) -> Path:
    """The library, in a folder that is made; raises where there is no C compiler."""
    folder.mkdir(parents=True, exist_ok=True)
    library = folder / "sanitized.so"
    subprocess.run(["cc", *FLAGS, *SOURCES, "-o", str(library)], cwd=ROOT, check=True)
    return library


def command(library: Path, *arguments: str) -> tuple[str, ...]:
    """Python, with the sanitizers loaded before all else."""
    names = [_library_of_gcc("libasan.so"), _library_of_gcc("libubsan.so")]
    start = ("env", f"LD_PRELOAD={':'.join(names)}", f"ASAN_OPTIONS={OPTIONS}", sys.executable)
    return (*start, *(arguments or ("-m", "tests.fuzz.sanitized", str(library))))


def use(library: Path) -> kernels.Kernel:
    """Take it for the compiled half of decoding, with exact buffers."""
    kernels.built = lambda: library
    kernels.room = _exact
    found = kernels.kernel()
    assert found is not None
    return found


def _exact(_name: str, *shape: int, dtype: Any = np.float32, kept: int = 0) -> NDArray[Any]:
    return np.empty(shape, dtype)


def _library_of_gcc(name: str) -> str:
    return subprocess.run(
        ["cc", f"-print-file-name={name}"], check=True, stdout=subprocess.PIPE, text=True
    ).stdout.strip()


def main(library: Path, arguments: list[str]) -> None:
    kernel, outcome = use(library), child.outcome

    def at_an_eighth_too(data: bytes, number: int) -> str:
        """What workers make of it; and an eighth of it and of a part, which they would read of larger ones only."""
        at = data.find(FRAME)
        if 0 <= at <= len(data) - 9:
            height, width = struct.unpack_from(">HH", data, at + 5)
            if 0 < height * width <= child.LIMITS.max_pixels:
                right, bottom = -(-width // 8), -(-height // 8)
                for channels in (1, 3):
                    for wanted in (None, (right // 4, bottom // 4, -(-3 * right // 4), -(-3 * bottom // 4))):
                        kernel.eighth(data, width, height, channels, wanted)
        return outcome(data, number)

    child.outcome = at_an_eighth_too
    kind, seed, first, count, state = arguments
    child.main(kind, int(seed), int(first), int(count), Path(state))


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
