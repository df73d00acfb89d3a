"""The process that decodes: as a worker does it, one damaged file after the other.

    python -m tests.fuzz.child FORMAT SEED FIRST COUNT STATE_FILE

The number of the case in hand is written to the state file before it is decoded, so that whoever watches knows which
one ended the process. The last line of stdout is the report, as JSON.
"""

from __future__ import annotations

import json
import os
import sys
import traceback
from collections import Counter
from pathlib import Path

import numpy as np

from jobs.errors import ItemError
from tests.fuzz.mutations import damaged
from worker.decode import DecodeLimits, decode
from worker.models.card import Interpolation, Preprocessing

__all__ = ["LIMITS", "outcome"]

#: Small, so that memory which grows stands out from the memory of a large picture.
LIMITS = DecodeLimits(max_pixels=1 << 20)
#: Cases after which memory is taken as settled: every plugin is loaded and the allocator has its pools.
SETTLED = 500

_INTERPOLATIONS: tuple[Interpolation, ...] = ("bilinear", "bicubic", "lanczos", "nearest")


def outcome(data: bytes, number: int) -> str:
    """``succeeded`` or the error's code. Raises what a worker would not survive unharmed."""
    resize = 8 if number % 6 == 0 else 32  # half of those that may be read at a smaller scale: at an eighth
    prep = Preprocessing(
        resize=resize, crop=(28, 28), interpolation=_INTERPOLATIONS[number % 4], scaled_decode=number % 3 == 0
    )
    try:
        image = decode(data, prep, LIMITS)
    except ItemError as error:
        if not error.message.isprintable() or len(error.message) > 200:
            raise ValueError(f"a message that is no printable line: {error.message!a}") from error
        return error.code
    if image.shape != (28, 28, 3) or image.dtype != np.uint8:
        raise ValueError(f"a result of shape {image.shape} and type {image.dtype}")
    return "succeeded"


def resident_kib() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") // 1024


def peak_kib() -> int:
    status = Path("/proc/self/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0])


def main(kind: str, seed: int, first: int, count: int, state: Path) -> None:
    outcomes: Counter[str] = Counter()
    escaped: list[dict[str, object]] = []
    settled = 0
    handle = os.open(state, os.O_WRONLY | os.O_CREAT)
    for number in range(first, first + count):
        os.pwrite(handle, number.to_bytes(8, "big"), 0)
        try:
            outcomes[outcome(damaged(seed, kind, number), number)] += 1
        except Exception:  # noqa: BLE001 - whatever escapes is what is looked for
            outcomes["escaped"] += 1
            escaped.append({"number": number, "traceback": traceback.format_exc()})
        if number == first + min(SETTLED, count // 2):
            settled = resident_kib()
    print(
        json.dumps(
            {
                "outcomes": outcomes,
                "escaped": escaped[:20],
                "settled_kib": settled,
                "resident_kib": resident_kib(),
                "peak_kib": peak_kib(),
            }
        )
    )


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4]), Path(sys.argv[5]))
