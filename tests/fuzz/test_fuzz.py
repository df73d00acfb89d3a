"""A short dose of damaged files; `make fuzz` gives the long one."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.fuzz import sanitized
from tests.fuzz.mutations import damaged
from tests.fuzz.run import GROWTH_KIB, Report, fuzz, main, table
from tests.fuzz.seeds import FORMATS, sound_files
from tests.support.compiled import compiled
from worker.decode import decode
from worker.models.card import Preprocessing

#: A process that dies of its case 2, hangs at none, and finds case 4 escaped.
FRAGILE = """
import json, os, sys
first, count, state = int(sys.argv[3]), int(sys.argv[4]), sys.argv[5]
cases = range(first, first + count)
for number in cases:
    open(state, "wb").write(number.to_bytes(8, "big"))
    if number == 2:
        os.abort()
escaped = [{"number": n, "traceback": "KeyError"} for n in cases if n == 4]
outcomes = {"succeeded": count - len(escaped), "escaped": len(escaped)}
print(json.dumps({"outcomes": outcomes, "escaped": escaped, "settled_kib": 1, "resident_kib": 1, "peak_kib": 1}))
"""
#: Reads an eighth of a sound file into a buffer that is a byte too short.
TOO_SHORT = """
from pathlib import Path
import numpy as np
from tests.fuzz import sanitized
from tests.fuzz.seeds import sound_files
from worker import kernels
kernel = sanitized.use(Path({library!r}))
kernels.np.empty = lambda shape, dtype: np.zeros(np.prod(shape) - 1, dtype)
kernels.room = lambda name, *shape, dtype, kept: np.zeros(shape, dtype)
kernel.eighth(sound_files("jpeg")[0], 48, 36, 3)
"""
#: Restores the rows of PNGs around the sizes from which four go at once, each in a buffer of its own.
ROWS = """
import itertools, random, zlib
from pathlib import Path
import numpy as np
from tests.fuzz import sanitized
from worker.kernels import kernel
kernel, rng, found = kernel() if {library!r} == "" else sanitized.use(Path({library!r})), random.Random(0), 0
for channels, width, height in itertools.product((1, 3, 4), (1, 2, 3, 7, 8, 9, 10, 33), (1, 3, 4, 5, 9)):
    rows = b"".join(bytes([rng.randrange(5)]) + rng.randbytes(width * channels) for _ in range(height))
    result = np.zeros((height + 1, width, channels), np.uint8)
    assert kernel.unfilter(rows, result)
    found = zlib.crc32(result, found)
print(found)
"""


@pytest.fixture
def compiler() -> None:
    """Skips only where nothing can be compiled that the processor runs."""
    compiled()
    if not shutil.which("cc"):
        pytest.skip("no C compiler")


def test_damaged_files_end_as_a_result_or_as_an_error_of_an_item(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--files", "1500", "--seed", "11"]) == 0
    heads, *rows = (line.split() for line in capsys.readouterr().out.splitlines())
    assert [row[0] for row in rows] == list(FORMATS)
    for row in rows:
        counts = dict(zip(heads[1:], row[1:], strict=False))
        assert counts["files"] == "250"
        assert counts["escaped"] == counts["died"] == counts["hung"] == "0"
        assert "0" not in (counts["succeeded"], counts["corrupt_image"])


@pytest.mark.usefixtures("compiler")
def test_the_compiled_half_touches_nothing_but_what_it_was_given(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--files", "1500", "--seed", "12", "--sanitize"]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 1 + len(FORMATS)


@pytest.mark.usefixtures("compiler")
def test_a_byte_behind_a_buffer_would_be_noticed(tmp_path: Path) -> None:
    library = sanitized.build(tmp_path)
    program = TOO_SHORT.format(library=str(library))
    found = subprocess.run(sanitized.command(library, "-c", program), capture_output=True, text=True, check=False)
    assert found.returncode != 0
    assert "heap-buffer-overflow" in found.stderr


@pytest.mark.usefixtures("compiler")
def test_the_rows_of_a_png_are_restored_without_a_byte_out_of_place(tmp_path: Path) -> None:
    library = sanitized.build(tmp_path)
    command = sanitized.command(library, "-c", ROWS.format(library=str(library)))
    # or Python's own allocator hands out many small buffers of one block
    environment = {**os.environ, "PYTHONMALLOC": "malloc"}
    found = subprocess.run(command, check=True, env=environment, stdout=subprocess.PIPE).stdout
    usual = [sys.executable, "-c", ROWS.format(library="")]
    assert found == subprocess.run(usual, check=True, stdout=subprocess.PIPE).stdout


def test_a_process_that_dies_is_followed_by_another_and_its_file_is_named() -> None:
    report = fuzz("png", seed=5, count=6, child=(sys.executable, "-c", FRAGILE))
    assert report.outcomes == {"succeeded": 4, "died": 1, "escaped": 1}
    assert not report.is_clean
    assert [fault.split(":")[0] for fault in report.faults] == ["--case png 2 --seed 5", "--case png 4 --seed 5"]


def test_memory_that_grows_is_not_clean() -> None:
    assert Report("png", growth_kib=GROWTH_KIB).is_clean
    assert not Report("png", growth_kib=GROWTH_KIB + 1).is_clean


def test_the_same_seed_gives_the_same_damage_and_another_one_another() -> None:
    assert damaged(1, "gif", 3) == damaged(1, "gif", 3)
    assert len({damaged(seed, "gif", number) for seed in range(3) for number in range(3)}) > 6


@pytest.mark.parametrize("kind", FORMATS)
def test_what_the_damage_starts_from_is_sound(kind: str) -> None:
    prep = Preprocessing(resize=8, crop=(8, 8))
    readable = [data for data in sound_files(kind) if not _is_lab(data, kind)]
    for data in readable:
        decode(data, prep)
    assert len(readable) >= 10


def _is_lab(data: bytes, kind: str) -> bool:
    """CIELAB (photometric interpretation 8) is the one colour space of the seeds that is not supported."""
    return kind == "tiff" and (b"\x06\x01\x03\0\x01\0\0\0\x08\0" in data)


def test_a_table_has_a_column_for_what_must_not_be() -> None:
    report = fuzz("png", seed=5, count=6, child=(sys.executable, "-c", FRAGILE))
    heads, row = (line.split() for line in table([report]).splitlines())
    assert row[heads.index("died")] == row[heads.index("escaped")] == "1"
