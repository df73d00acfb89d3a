"""A short dose of each fault on real processes; `make chaos` gives the long one."""

from __future__ import annotations

import json
import random
from collections import Counter
from pathlib import Path

import pytest

from tests.chaos.__main__ import main
from tests.chaos.diary import Diary, Kill, Reader
from tests.chaos.faults import FAULTS
from tests.chaos.figures import Fault, Measured

#: The one by which the command is tried.
BY_COMMAND = "kill-producer"


@pytest.mark.parametrize("fault", [f for f in FAULTS if f.name != BY_COMMAND], ids=lambda fault: fault.name)
def test_a_short_dose_of_each_fault_shows_what_it_must(fault: Fault) -> None:
    seed = random.SystemRandom().randrange(1 << 32)
    measured = fault.strike(fault.short, random.Random(seed))
    # how fast is for `make chaos` to say: machines that run tests have other work to do
    assert fault.broken(measured, fault.short, timing=False) == [], f"seed {seed}: {fault.tell(measured)}"


def test_a_run_prints_a_table_and_writes_what_it_measured(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output = tmp_path / "chaos" / "results.json"
    assert main(["--short", "--only", BY_COMMAND, "--output", str(output)]) == 0
    (row,) = json.loads(output.read_text())["faults"]
    assert (row["fault"], row["met"], row["figures"]["lost"], row["figures"]["kills"]) == (BY_COMMAND, True, 0, 2)
    assert "a producer killed in the" in capsys.readouterr().out


@pytest.mark.parametrize("figure", ["lost", "wrong", "twice", "unbalanced", "recomputed", "hard"])
def test_one_image_that_is_not_as_it_must_be_is_a_broken_promise(figure: str) -> None:
    (fault,) = (fault for fault in FAULTS if fault.name == "restart-worker")
    sound = Measured(Counter(fault.dose))
    assert fault.broken(sound, fault.dose) == []
    sound.figures[figure] = 1
    assert len(fault.broken(sound, fault.dose)) == 1


def test_a_recovery_lasts_from_the_kill_to_the_next_claim_of_the_chunk_or_of_a_half_of_it(tmp_path: Path) -> None:
    lines = [
        [1.0, 7, "claimed", "job", "1", "a", ["x", "y"]],
        [2.0, 7, "recorded", "job", "1", "a"],
        [2.1, 7, "claimed", "job", "2", "b", ["z"]],
        [2.2, 8, "claimed", "job", "3", "c", ["v", "w"]],
        [4.0, 9, "claimed", "job", "22", "d", ["u"]],
        [6.0, 9, "claimed", "job", "2", "e", ["z"]],
        [7.0, 9, "claimed", "job", "3.0", "f", ["v"]],
    ]
    path = tmp_path / "diary"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines) + '[8.0, 9, "rec')
    reader = Reader(path)
    assert reader.recoveries([Kill(3.0, frozenset({7, 8}))]) == [3.0, 4.0]
    assert reader.times_delivered()["job", "z"] == 2
    with path.open("ab") as file:
        file.write(b'orded", "job", "3.0", "f"]\n')
    assert reader.count("recorded") == 2
    Diary(str(path)).write("computed", "job", "2", "z")
    assert reader.times_computed() == {("job", "z"): 1}
