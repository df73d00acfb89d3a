"""Outputs that grow: cut off anywhere and taken up again, no line is lost or doubled."""

from __future__ import annotations

import csv
from pathlib import Path

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jobs.errors import UsageError
from jobs.items import Result
from producer.outputs import append
from producer.outputs.append import Appender
from tests.support.limits import no_file_above

MODEL = {"name": "m", "digest": "sha256:00"}


def result(number: int) -> Result:
    if number % 3 == 0:
        return Result(f"{number}.jpg", "failed", error={"code": "corrupt_image", "message": ""})
    labels = [{"label": "cat", "index": 1, "score": 0.5}]
    return Result(f"{number}.jpg", "succeeded", labels, MODEL, fields={"n": number})


PAGES = [(f"{page}-0", [result(10 * page + n) for n in range(10)]) for page in range(1, 8)]


@pytest.mark.parametrize("format", ["jsonl", "csv"])
def test_a_file_that_has_no_room_to_grow_is_named(format: str, tmp_path: Path) -> None:
    def write() -> None:
        with Appender("job", format, tmp_path / "out", None, top_k=1) as out:
            for _ in range(1000):
                out.write("1-0", PAGES[0][1], skipped=0)

    with no_file_above(4000), pytest.raises(OSError, match=r"File too large: '.*/out'"):
        write()


class KilledError(Exception):
    """Stands for the end of the process."""


def run(folder: Path, format: str, *, until: int, unmarked: bool) -> bool:
    """Write pages from where the last run was left; ``until`` pages in all, then die. True where it is complete.

    ``unmarked``: what was written last was never marked, and half a line stands behind it.
    """
    output, errors = folder / f"out.{format}", folder / f"errors.{format}"
    try:
        with Appender("job", format, output, errors, top_k=1, columns=("n",)) as out:
            at = [cursor for cursor, _ in PAGES].index(out.mark.cursor) + 1 if out.resumed else 0
            for cursor, results in PAGES[at:until]:
                out.write(cursor, results, skipped=0)
            if until < len(PAGES):
                if not unmarked:
                    out.save()
                raise KilledError
            out.finish()
    except KilledError:
        if unmarked:
            with output.open("ab") as stream:
                stream.write(b'{"custom_id": "half')
        return False
    return True


@pytest.mark.parametrize("format", ["jsonl", "csv"])
@settings(max_examples=30, deadline=None)
@given(cuts=st.lists(st.tuples(st.integers(0, 6), st.booleans()), max_size=6))
def test_however_often_it_is_cut_off_every_line_is_there_once(
    format: str, cuts: list[tuple[int, bool]], tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("out")
    for until, unmarked in cuts:
        run(folder, format, until=until, unmarked=unmarked)
    assert run(folder, format, until=len(PAGES), unmarked=False)
    found = [read(folder / f"{name}.{format}", format) for name in ("out", "errors")]
    everything = [r.custom_id for _, page in PAGES for r in page]
    assert found[0] == [name for name in everything if int(name.partition(".")[0]) % 3]
    assert found[1] == [name for name in everything if int(name.partition(".")[0]) % 3 == 0]
    assert sorted(path.name for path in folder.iterdir()) == [f"errors.{format}", f"out.{format}"]


def read(path: Path, format: str) -> list[str]:
    if format == "csv":
        with path.open(newline="") as file:
            return [row["custom_id"] for row in csv.DictReader(file)]
    return [orjson.loads(line)["custom_id"] for line in path.read_bytes().splitlines()]


def test_marks_are_not_made_more_often_than_they_pay(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(append, "MARK_EVERY_S", 3600.0)
    with Appender("job", "jsonl", tmp_path / "out.jsonl", None, top_k=1) as out:
        for cursor, results in PAGES:
            out.write(cursor, results, skipped=0)
    with Appender("job", "jsonl", tmp_path / "out.jsonl", None, top_k=1) as out:
        assert out.mark.cursor == PAGES[0][0], "only the first page was marked"


def test_an_output_that_was_begun_for_something_else_is_left_alone(tmp_path: Path) -> None:
    run(tmp_path, "jsonl", until=2, unmarked=False)
    with pytest.raises(UsageError, match="was begun for job job as jsonl"):
        Appender("other", "jsonl", tmp_path / "out.jsonl", tmp_path / "errors.jsonl", top_k=1)


def test_an_output_that_was_begun_for_an_earlier_job_of_the_same_id_is_left_alone(tmp_path: Path) -> None:
    run(tmp_path, "jsonl", until=2, unmarked=False)
    with pytest.raises(UsageError, match="an earlier job job"):
        Appender("job", "jsonl", tmp_path / "out.jsonl", tmp_path / "errors.jsonl", top_k=1, made_ms=7, columns=("n",))


def test_all_columns_are_those_that_were_found_when_it_was_begun(tmp_path: Path) -> None:
    output = tmp_path / "out.csv"
    with Appender("job", "csv", output, None, top_k=1, wanted="all", columns=("n",)) as out:
        out.write(*PAGES[0], skipped=0)
        out.save()
    with Appender("job", "csv", output, None, top_k=1, wanted="all", columns=("n", "m")) as out:
        assert out.mark.columns == ("n",)
        out.write(*PAGES[1], skipped=0)
        out.finish()
    assert len(read(output, "csv")) == 20


def test_two_processes_cannot_write_one_output(tmp_path: Path) -> None:
    path = tmp_path / "out.jsonl"
    with (
        Appender("job", "jsonl", path, None, top_k=1),
        pytest.raises(UsageError, match="being written by another process"),
        Appender("job", "jsonl", path, None, top_k=1),
    ):
        pass


def test_an_output_that_lost_its_end_meanwhile_is_not_continued(tmp_path: Path) -> None:
    run(tmp_path, "jsonl", until=3, unmarked=False)
    (tmp_path / "out.jsonl").write_bytes(b"")
    with pytest.raises(UsageError, match="shorter than it was"):
        run(tmp_path, "jsonl", until=7, unmarked=False)


@pytest.mark.parametrize("text", ["{", "{}", "[]", '{"columns":[],"files":[],"sizes":[],"written":[],"newer":1}'])
def test_a_mark_that_cannot_be_read_says_what_to_do(text: str, tmp_path: Path) -> None:
    (tmp_path / ".out.jsonl.labelmill").write_text(text)
    with pytest.raises(UsageError, match="remove it to begin anew"):
        Appender("job", "jsonl", tmp_path / "out.jsonl", None, top_k=1)
