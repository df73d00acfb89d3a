"""Writers: every format holds every result."""

from __future__ import annotations

import csv
import io
from pathlib import Path

import orjson
import pyarrow.parquet as pq
import pytest
from rich.console import Console

from jobs.errors import UsageError
from jobs.items import Result
from producer.outputs import FORMATS, format_of, open_target, open_writer
from producer.outputs import table as table_module
from producer.outputs.table import TableWriter
from tests.support.limits import no_file_above

MODEL = {"name": "m", "digest": "sha256:00"}
GOOD = Result(
    "a,b.jpg",
    "succeeded",
    [{"label": 'say "cat"', "index": 3, "score": 0.9}, {"label": "dog", "index": 1, "score": 0.05}],
    MODEL,
)
BAD = Result("bad.jpg", "failed", error={"code": "corrupt_image", "message": "cut short"})
CANCELLED = Result("c.jpg", "cancelled")
ALL = [GOOD, BAD, CANCELLED]


def written(format: str, results: list[Result]) -> bytes:
    stream = io.BytesIO()
    writer = open_writer(format, stream, top_k=3)
    writer.write(results[:1])
    writer.write(results[1:])
    writer.close()
    return stream.getvalue()


def test_jsonl_is_one_result_a_line() -> None:
    assert [orjson.loads(line) for line in written("jsonl", ALL).splitlines()] == [r.as_dict() for r in ALL]


def test_csv_has_a_column_for_each_label_and_quotes_what_needs_it() -> None:
    good, bad, cancelled = csv.DictReader(io.StringIO(written("csv", ALL).decode(), newline=""))
    assert (good["custom_id"], good["label_1"], good["score_1"], good["label_2"]) == (
        "a,b.jpg",
        'say "cat"',
        "0.9",
        "dog",
    )
    assert (good["label_3"], good["error_code"], good["model"]) == ("", "", "m")
    assert (bad["status"], bad["label_1"], bad["error_code"], bad["error_message"]) == (
        "failed",
        "",
        "corrupt_image",
        "cut short",
    )
    assert cancelled["status"] == "cancelled"


def test_parquet_has_the_labels_as_a_list() -> None:
    rows = pq.read_table(io.BytesIO(written("parquet", ALL))).to_pylist()
    assert [row["custom_id"] for row in rows] == [r.custom_id for r in ALL]
    assert rows[0]["labels"] == GOOD.labels
    assert rows[1]["error"] == BAD.error
    assert rows[2]["labels"] is None


@pytest.mark.parametrize("format", FORMATS)
def test_no_results_are_a_valid_file(format: str) -> None:
    assert isinstance(written(format, []), bytes)


def printed(results: list[Result]) -> str:
    stream = io.StringIO()
    writer = TableWriter(Console(file=stream, width=100), top_k=2)
    writer.write(results)
    writer.close()
    return stream.getvalue()


def test_the_table_shows_best_label_score_and_reasons_in_order_of_the_files() -> None:
    lines = printed([BAD, GOOD]).splitlines()
    assert lines[0].split() == ["file", "label", "score", "next"]
    assert lines[1].split()[:4] == ["a,b.jpg", "say", '"cat"', "0.900"]
    assert "corrupt_image: cut short" in lines[2]


def test_a_long_table_is_printed_in_groups_under_one_header(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(table_module, "SORT_LIMIT", 2)
    stream = io.StringIO()
    writer = TableWriter(Console(file=stream, width=100), top_k=2)
    writer.write([GOOD] * 3)
    before = stream.getvalue()
    writer.write([BAD])
    writer.close()
    assert before.count("a,b.jpg") == 3
    assert stream.getvalue().count("label") == 1


def test_labels_are_text_and_no_markup() -> None:
    assert "[red]x[/red]" in printed([Result("[red]x[/red]", "succeeded", [{"label": "y", "index": 0, "score": 1.0}])])


def _write_half(target: Path) -> None:
    with open_target(target) as stream:
        stream.write(b"half")
        raise BrokenPipeError


def test_a_file_appears_whole_or_not_at_all(tmp_path: Path) -> None:
    target = tmp_path / "new" / "out.jsonl"
    with pytest.raises(BrokenPipeError):
        _write_half(target)
    assert list(target.parent.iterdir()) == []
    with open_target(target) as stream:
        stream.write(b"whole")
        assert not target.exists()
    assert target.read_bytes() == b"whole"
    assert list(target.parent.iterdir()) == [target]


def test_a_file_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UsageError, match="cannot write"), open_target(tmp_path / "file" / "out"):
        pass


@pytest.mark.parametrize(
    ("name", "format"),
    [("a.jsonl", "jsonl"), ("a.CSV", "csv"), ("a.parquet", "parquet"), ("a.txt", None), ("/dev/stdout", None)],
)
def test_a_suffix_names_its_format(name: str, format: str | None) -> None:
    assert format_of(Path(name)) == format


@pytest.mark.parametrize("format", FORMATS)
def test_a_file_that_has_no_room_is_named_and_does_not_stay(format: str, tmp_path: Path) -> None:
    def write() -> None:
        with open_target(tmp_path / "out") as stream:
            writer = open_writer(format, stream, top_k=3)
            for _ in range(1000):
                writer.write(ALL)
            writer.close()

    with no_file_above(100), pytest.raises(OSError, match=r"File too large: '.*/out'"):
        write()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["a.xlsx", "a.json", "a.jsonl.gz"])
def test_a_suffix_of_no_format_is_refused(name: str) -> None:
    with pytest.raises(UsageError, match="no format ends in") as refused:
        format_of(name)
    assert name in str(refused.value)
