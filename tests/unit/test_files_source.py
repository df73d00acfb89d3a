"""Folders, files and patterns as a source."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from jobs.errors import SourceError
from jobs.items import Item, check_items, decode_chunk, encode_chunk
from producer.sources import files
from producer.sources.contract import spelled_out
from producer.sources.files import Files
from producer.sources.patterns import Pattern


def touch(*paths: Path) -> None:
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


def ids(source: Files) -> list[str]:
    return [item.custom_id for item in source]


def test_one_folder_gives_paths_relative_to_it_in_order_of_their_names(tmp_path: Path) -> None:
    touch(tmp_path / "b.jpg", tmp_path / "a.PNG", tmp_path / "sub/c.webp", tmp_path / "notes.txt", tmp_path / ".h.jpg")
    source = Files([tmp_path])
    assert list(source) == [Item(name, f"{tmp_path}/{name}") for name in ("a.PNG", "b.jpg", "sub/c.webp")]
    assert source.base == str(tmp_path)


def test_several_names_keep_ids_apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    touch(tmp_path / "a/x.jpg", tmp_path / "b/x.jpg", tmp_path / "c.any")
    monkeypatch.chdir(tmp_path)
    assert ids(Files(["a", "./b", "c.any"])) == ["a/x.jpg", "b/x.jpg", "c.any"]


@pytest.mark.parametrize("names", [("a", "a/sub"), ("a", "./a"), ("a/sub/x.jpg", "a")])
def test_a_name_that_is_part_of_another_is_refused(
    names: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    touch(tmp_path / "a/sub/x.jpg")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SourceError, match="named twice"):
        Files(names)


def test_a_name_that_only_begins_like_another_is_welcome(tmp_path: Path) -> None:
    touch(tmp_path / "a/x.jpg", tmp_path / "ab/x.jpg")
    assert len(list(Files([tmp_path / "a", tmp_path / "ab"]))) == 2


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"no such file or folder: .*missing"):
        Files([tmp_path / "missing"])


def test_links_to_folders_are_not_followed_so_that_walks_end(tmp_path: Path) -> None:
    touch(tmp_path / "x.jpg")
    (tmp_path / "loop").symlink_to(tmp_path)
    assert [item.custom_id for item in Files([tmp_path])] == ["x.jpg"]


def test_a_name_that_cannot_travel_becomes_an_item_that_fails(tmp_path: Path) -> None:
    os.close(os.open(os.fsencode(tmp_path) + b"/\xff\n.jpg", os.O_CREAT))
    (item,) = Files([tmp_path])
    assert item.checked().custom_id.startswith("\\xff\\x0a.jpg~")
    assert item.ref == "error:invalid_item"


def test_a_folder_too_large_to_sort_is_complete_and_each_part_of_it_in_the_order_of_the_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files, "SORT_LIMIT", 30)
    names = {f"{i}.jpg" for i in range(100)}
    touch(*(tmp_path / name for name in names))
    found = [item.custom_id for item in Files([tmp_path])]
    assert len(found) == len(names)
    assert set(found) == names
    inodes = [(tmp_path / name).stat().st_ino for name in found]
    parts = [inodes[begin : begin + 30] for begin in range(0, 100, 30)]
    assert parts == [sorted(part) for part in parts]
    assert found != sorted(found)


@pytest.mark.parametrize("together", [1, 2, 1000])
@pytest.mark.parametrize(
    ("what", "alone"),
    [
        ("", {"sub/x.png", "sub/y.png"}),
        ("/sub", {"x.png", "y.png"}),
        ("/**/*.png", {"sub/x.png", "sub/y.png"}),
        ("/s*/*", {"sub/x.png", "sub/y.png"}),
        ("/*", set()),
    ],
)
def test_images_of_one_folder_are_named_by_their_custom_ids_alone_and_are_the_same_spelled_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, together: int, what: str, alone: set[str]
) -> None:
    monkeypatch.setattr(files, "TOGETHER", together)
    touch(*(tmp_path / "f" / name for name in ("a.jpg", "b.png", "c.txt", ".d.jpg", "sub/x.png", "sub/y.png")))
    touch(tmp_path / "f/none/of/it.jpg", tmp_path / "f/.hidden/e.jpg", tmp_path / "far/g.png")
    (tmp_path / "f/link.png").symlink_to(tmp_path / "far/g.png")
    source = Files([f"{tmp_path}/f{what}"])
    named = list(source.named())
    assert list(source) == [Item(i, f"{source.base}/{i}") if isinstance(i, str) else i for i in named]
    assert sorted(item.custom_id for item in source) == sorted(custom_id for custom_id, _ in source.ids())
    payloads = {encode_chunk(images, base=source.base) for images in (named, list(source))}
    assert len(payloads) == 1
    items = decode_chunk(payloads.pop()).items
    assert items == tuple(source)
    assert [item.ref for item in items if item.custom_id == "link.png"] in ([], [f"{tmp_path}/far/g.png"])
    assert all(os.path.realpath(item.ref) == item.ref for item in items)
    assert alone <= set(named)
    assert "link.png" not in named


@pytest.mark.parametrize("name", ["a\n.jpg", "\u2028.jpg", "b" * 200 + ".jpg"])
def test_a_name_that_is_odd_is_not_sent_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setattr(files, "MAX_ID_CHARS", 100)
    touch(tmp_path / name, tmp_path / "fine.jpg")
    assert all(isinstance(item, Item) for item in Files([tmp_path]).named())
    assert {item.custom_id for item in Files([tmp_path]) if not item.ref.startswith("error:")} >= {"fine.jpg"}


@pytest.mark.parametrize(
    ("folder", "inner"), [("odd\n", "sub"), (os.fsdecode(b"\xff"), "sub"), ("fine", "odd\n"), ("\u2028", "sub")]
)
def test_what_cannot_be_asked_for_because_of_its_folder_fails_alone(tmp_path: Path, folder: str, inner: str) -> None:
    touch(tmp_path / folder / "a.jpg", tmp_path / folder / inner / "b.jpg")
    source = Files([tmp_path / folder])
    named = list(source.named())
    check_items(named, base=source.base)
    items = decode_chunk(encode_chunk(named, base=source.base)).items
    assert items == tuple(source)
    is_fine = {"fine": ["a.jpg"], "\u2028": ["a.jpg", "sub/b.jpg"]}.get(folder, [])
    assert [item.custom_id for item in items if not item.ref.startswith("error:")] == is_fine
    assert len(items) == 2


@pytest.mark.parametrize("base", ["", "/data"])
def test_what_is_spelled_out_is_what_a_worker_reads(base: str) -> None:
    images = ["a.jpg", Item("b.jpg", "/elsewhere/b.jpg")]
    assert decode_chunk(encode_chunk(images, base=base)).items == tuple(spelled_out(images, base))


@pytest.mark.parametrize("base", ["/", "//", ""])
def test_nothing_is_named_alone_where_a_slash_is_all_that_goes_before(tmp_path: Path, base: str) -> None:
    touch(tmp_path / "a.jpg")
    source = Files([tmp_path])
    assert list(source.named()) == ["a.jpg"]
    source.base = base
    assert list(source.named()) == [Item("a.jpg", f"{tmp_path}/a.jpg")]


def test_the_first_id_of_a_folder_comes_before_it_is_gone_through(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    touch(*(tmp_path / f"{number}.jpg" for number in range(500)))
    looked_at = []

    class Counted:
        """What ``os.scandir`` gives, counted."""

        def __init__(self, folder: str) -> None:
            self._scan = scandir(folder)

        def __enter__(self) -> Counted:
            return self

        def __exit__(self, *args: object) -> None:
            self._scan.close()

        def __iter__(self) -> Iterator[os.DirEntry[str]]:
            for entry in self._scan:
                looked_at.append(entry)
                yield entry

    scandir = os.scandir
    monkeypatch.setattr(os, "scandir", Counted)
    source = Files([tmp_path])
    assert next(source.ids())[0].endswith(".jpg")
    assert len(looked_at) == 1
    assert {custom_id for custom_id, _ in source.ids()} == {item.custom_id for item in source}


# -- patterns --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("pattern", "name", "fits"),
    [
        ("p/**/*.jpg", "x/y/z.jpg", True),
        ("p/**/*.jpg", "z.jpg", True),
        ("p/*.jpg", "x/z.jpg", False),
        ("p/[ab]*.png", "b1.png", True),
        ("p/[!ab]*.png", "b1.png", False),
        ("p/?.jpg", "ab.jpg", False),
        ("*", "x.JPG", True),
        ("*", "x.txt", False),
        ("p/*.txt", "x.txt", True),
        ("p/**", "q/r/x.jpg", True),
        ("p/a.jpg*", "axjpg", False),
        ("p/[.jpg*", "[.jpg", True),
    ],
)
def test_a_pattern_fits_as_a_shell_would(pattern: str, name: str, fits: bool) -> None:
    assert Pattern(pattern).matches(name) is fits


def test_a_pattern_goes_only_as_deep_as_it_says(tmp_path: Path) -> None:
    touch(tmp_path / "a.jpg", tmp_path / "x/b.jpg", tmp_path / "x/y/c.jpg", tmp_path / "x/d.png")
    assert ids(Files([tmp_path / "*.jpg"])) == ["a.jpg"]
    assert ids(Files([tmp_path / "*/*.jpg"])) == ["x/b.jpg"]
    assert ids(Files([tmp_path / "**/*.jpg"])) == ["a.jpg", "x/b.jpg", "x/y/c.jpg"]


def test_a_file_whose_name_looks_like_a_pattern_is_that_file(tmp_path: Path) -> None:
    touch(tmp_path / "a[1].jpg", tmp_path / "a1.jpg")
    (item,) = Files([tmp_path / "a[1].jpg"])
    assert isinstance(item, Item)
    assert item.ref == str(tmp_path / "a[1].jpg")


def test_only_patterns_can_repeat_an_id_so_only_they_are_gone_through_first(tmp_path: Path) -> None:
    touch(tmp_path / "a/x.jpg", tmp_path / "b/x.jpg")
    assert Files([tmp_path / "a", tmp_path / "b"]).unique
    assert Files([tmp_path / "*/*.jpg"]).unique
    assert not Files([tmp_path / "a/*.jpg", tmp_path / "a/x*"]).unique
