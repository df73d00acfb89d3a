"""Custom_ids: compared before anything is sent, on disk."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from jobs.errors import SourceError
from jobs.items import Item
from producer import ids
from producer.ids import IdSet, check_ids, missing
from producer.sources import Archive, Files, Manifest, Picture, Upload, open_source
from producer.sources.chain import Pictures
from tests.unit.test_producer_sources import archive_at, touch


def test_a_repeated_id_is_named_with_both_its_places(tmp_path: Path) -> None:
    (tmp_path / "list.csv").write_text("path,owner\na.jpg,x\nb.jpg,x\na.jpg,y\n")
    with pytest.raises(SourceError, match=r"'a\.jpg' is there twice: .*list\.csv:2 and .*list\.csv:4"):
        check_ids(Manifest(str(tmp_path / "list.csv")))


@pytest.mark.filterwarnings("ignore:Duplicate name:UserWarning")
def test_an_archive_with_a_name_twice_is_refused(tmp_path: Path) -> None:
    path = archive_at(tmp_path / "a.zip", {"x.jpg": b"1"})
    import zipfile

    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("x.jpg", b"2")
    with pytest.raises(SourceError, match=r"image 1 of .*a\.zip and image 2 of"):
        check_ids(Archive(str(path)))


def test_ids_of_several_sources_are_compared_with_each_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    touch(tmp_path / "dir/a.jpg")
    (tmp_path / "list.txt").write_text("dir/a.jpg\n")
    with pytest.raises(SourceError, match=rf"{tmp_path}/dir/a\.jpg and list\.txt:1"):
        check_ids(open_source(["dir", "list.txt"]))


def test_two_ids_with_one_hash_are_two(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ids, "hash", lambda custom_id: 7, raising=False)
    check_ids(Pictures([Item("a", "/a"), Item("b", "/b")]))
    with pytest.raises(SourceError, match="'b' is there twice: image 2 and image 3"):
        check_ids(Pictures([Item("a", "/a"), Item("b", "/b"), Item("b", "/c")]))


def test_what_cannot_repeat_is_only_asked_for_its_first_image() -> None:
    class Endless:
        base = ""
        unique = True

        def __iter__(self) -> Iterator[Picture]:
            yield Item("a", "/a")
            raise AssertionError("it was gone through")

    check_ids(Endless())


def test_nothing_to_send_is_an_error(tmp_path: Path) -> None:
    for source in (Files([tmp_path]), Pictures([]), open_source([])):
        with pytest.raises(SourceError, match="no images found"):
            check_ids(source)


def test_only_what_is_missing_is_sent_again() -> None:
    pictures = [Item("a", "/a"), Upload("b", b""), Item("c", "/c")]
    assert list(missing(pictures, ["b", "b", "x"])) == [Item("a", "/a"), Item("c", "/c")]


def test_a_set_of_ids_says_what_is_new() -> None:
    with IdSet() as known:
        assert known.add("a")
        assert not known.add("a")
        assert "a" in known
        assert "b" not in known
