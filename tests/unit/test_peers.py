"""The comparison with peers: what its words and figures are made of."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from benchmarks.peers.catalogue import CONTENDERS, IMAGES
from benchmarks.peers.collect import MANY, collect
from benchmarks.peers.faults import AMONG, PLACE, broken_among, broken_verdict, kill_verdict
from benchmarks.peers.report import ratio, to_markdown
from benchmarks.peers.runner import Run
from benchmarks.peers.venvs import CONSTRAINTS
from benchmarks.peers.work import Answer

RIGHT = [[number, 9000, number + 1, 1000] for number in range(AMONG)]
FOREVER = float("inf")


def test_a_ratio_is_the_median_of_those_within_a_round() -> None:
    assert ratio([10, 5, 30], [20, 5, 40]) == 0.75


def test_rounds_of_unequal_number_have_no_ratio() -> None:
    with pytest.raises(ValueError, match="shorter"):
        ratio([1, 2], [1])


def answers(**other: Answer) -> list[Answer]:
    made: list[Answer] = list(RIGHT)
    for place, answer in other.items():
        made[int(place[1:])] = answer
    return made


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (answers(), "completes, +1.5 s"),
        (answers(_3="408 batch", _4="408 batch"), f"2 of {AMONG} answers lost (408 batch)"),
        (answers(_3=None), f"not done after 2 s: 1 of {AMONG} without an answer"),
        (answers(_3=None, _4="gone"), f"not done after 2 s: 1 of {AMONG} without an answer, 1 lost (gone)"),
        (answers(_3=RIGHT[4]), "done, with wrong labels"),
    ],
)
def test_what_a_kill_came_to_is_said_in_words(given: list[Answer], words: str) -> None:
    assert kill_verdict(Run(3.5, given), RIGHT, 2.0) == words


def test_scores_may_differ_where_labels_do_not() -> None:
    assert kill_verdict(Run(2.0, answers(_3=[3, 8999, 4, 1001])), RIGHT, 2.0).startswith("completes")


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({PLACE: "JPEG image\nis damaged"}, "yes (JPEG image is damaged)"),
        ({PLACE: None}, "no: no answer"),
        ({PLACE: [1, 2]}, "no: labels"),
        ({PLACE: "500", 1: "500", 2: "500"}, "no: 2 good neighbours have none either (500)"),
    ],
)
def test_whether_a_broken_image_fails_alone_is_said_in_words(given: dict[int, Answer], words: str) -> None:
    found = [given.get(place, answer) for place, answer in enumerate(RIGHT)]
    assert broken_verdict(found, RIGHT) == words


def test_one_image_of_the_folder_is_broken_and_no_other(tmp_path: Path) -> None:
    paths = []
    for number in range(AMONG + 3):
        path = tmp_path / f"{number:03}.jpg"
        path.write_bytes(bytes([number]) * 10)
        paths.append(str(path))
    made = broken_among(paths, tmp_path / "broken")
    sizes = [len(Path(path).read_bytes()) for path in made]
    assert sizes == [5 if place == PLACE else 10 for place in range(AMONG)]


def test_results_are_collected_in_the_order_of_their_ids_however_they_come() -> None:
    ids = [str(number) for number in range(MANY + 10)]
    looks = []

    def look(part: Any) -> list[str | None]:
        looks.append(len(part))
        return [one if (int(one) + len(looks)) % 3 else None for one in part]

    assert collect(ids, look, FOREVER) == ids
    assert max(looks) == MANY


def test_results_that_do_not_come_are_none_at_the_deadline() -> None:
    assert collect(["a", "b"], lambda part: [None] * len(part), deadline=0.0) == [None, None]


def test_the_table_has_a_row_for_each_the_fastest_first_and_says_what_failed() -> None:
    def one(title: str, photo: dict[str, Any]) -> dict[str, Any]:
        return {"title": title, "version": "1.0", "progress": "none", "works": {"photo": photo}}

    results = {
        "bare": {"photo": {"rate": 2222.0}},
        "contenders": {
            "slow": one("Slow", {"ratio": 0.5, "rate": 1234.0, "pss_mb": 99.6}),
            "dead": one("Dead", {"failed": "not | ready"}),
            "fast": one("Fast", {"ratio": 0.9, "rate": 2000.0, "pss_mb": 10.0}),
        },
    }
    lines = to_markdown(results).splitlines()
    assert [line.split(" ")[1] for line in lines[2:]] == ["the", "Fast", "Slow", "Dead"]
    assert "| 1.00 (2,222 images/s) | - | - |" in lines[2]
    assert "| 0.50 (1,234 images/s) | - | 100 |" in lines[4]
    assert r"failed: not \| ready" in lines[5]


def test_every_peer_is_pinned_and_says_how_it_runs_each_kind_of_work() -> None:
    pinned = {line.lower() for file in CONSTRAINTS for line in file.read_text().splitlines()}
    for contender in CONTENDERS.values():
        if contender.requirement:
            assert contender.requirement.replace("[data]", "") in pinned
        for table in (contender.images, contender.batch, contender.chunk):
            assert table.keys() == IMAGES.keys()
