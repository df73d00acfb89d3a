"""Sources: archives, manifests, URLs, standard input, and how images travel."""

from __future__ import annotations

import io
import tarfile
import zipfile
from collections import Counter
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import orjson
import pytest

from jobs import asking
from jobs.errors import SourceError, UsageError
from jobs.items import Item
from jobs.reach import Reach, common_reach
from producer.ids import check_ids
from producer.sources import Archive, ByValue, Manifest, Named, Source, Upload, open_source
from producer.sources.chain import Pictures
from producer.sources.manifest import MAX_FIELDS_BYTES, MAX_LINE_CHARS

MEMBERS = {"a.jpg": b"A", "sub/b.PNG": b"BB", "notes.txt": b"no image", ".hidden/c.jpg": b"C", "__MACOSX/a.jpg": b"M"}
ARCHIVES = ("images.zip", "images.tar", "images.tar.gz", "images.tgz", "images.tar.bz2", "images.tar.xz")


def touch(*paths: Path) -> None:
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(path.name.encode())


def archive_at(path: Path, members: dict[str, bytes] = MEMBERS) -> Path:
    if path.suffix == ".zip":
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            for name, data in members.items():
                archive.writestr(name, data)
        return path
    modes = {".gz": "w:gz", ".tgz": "w:gz", ".bz2": "w:bz2", ".xz": "w:xz"}
    with tarfile.open(path, modes.get(path.suffix, "w")) as tar:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return path


def ids(source: Source) -> list[str]:
    return [picture.custom_id for picture in source]


class BadLines(list[tuple[str, str]]):
    def __call__(self, place: str, reason: str) -> None:
        self.append((place.rpartition(":")[2], reason))


# -- archives --------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ARCHIVES)
def test_an_archive_gives_its_images_by_value(name: str, tmp_path: Path) -> None:
    source = Archive(str(archive_at(tmp_path / name)))
    assert list(source) == [Upload("a.jpg", b"A"), Upload("sub/b.PNG", b"BB")]
    assert [custom_id for custom_id, _ in source.ids()] == ["a.jpg", "sub/b.PNG"]
    assert list(tmp_path.iterdir()) == [tmp_path / name], "an archive is never unpacked to disk"


@pytest.mark.parametrize("name", ["images.zip", "images.tar"])
def test_an_image_over_the_limit_fails_alone(name: str, tmp_path: Path) -> None:
    path = archive_at(tmp_path / name, {"big.jpg": b"x" * 100, "small.jpg": b"x"})
    assert list(Archive(str(path), max_bytes=10)) == [Item("big.jpg", "error:too_large"), Upload("small.jpg", b"x")]


def test_a_damaged_member_of_a_zip_fails_alone(tmp_path: Path) -> None:
    path = archive_at(tmp_path / "images.zip", {"a.jpg": b"A" * 50, "b.jpg": b"B" * 50})
    with zipfile.ZipFile(path) as archive:
        start = archive.getinfo("a.jpg").header_offset + 30 + len("a.jpg")
    raw = bytearray(path.read_bytes())
    raw[start : start + 4] = b"\xff\xff\xff\xff"
    path.write_bytes(raw)
    assert list(Archive(str(path))) == [Item("a.jpg", "error:corrupt_image"), Upload("b.jpg", b"B" * 50)]


@pytest.mark.parametrize("name", ARCHIVES)
def test_an_archive_that_was_cut_short_says_so(name: str, tmp_path: Path) -> None:
    path = archive_at(tmp_path / name, {f"{n}.jpg": bytes(range(256)) * 40 for n in range(3)})
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(SourceError, match=f"{name} is damaged after"):
        list(Archive(str(path)))


def test_an_encrypted_zip_says_so(tmp_path: Path) -> None:
    path = archive_at(tmp_path / "images.zip", {"a.jpg": b"A"})
    raw = bytearray(path.read_bytes())
    raw[raw.index(b"PK\x01\x02") + 8] |= 1
    path.write_bytes(raw)
    with pytest.raises(SourceError, match=r"a\.jpg is encrypted"):
        list(Archive(str(path)))


def test_a_member_whose_name_cannot_travel_fails_alone(tmp_path: Path) -> None:
    path = archive_at(tmp_path / "images.tar", {"a\nb.jpg": b"A", "c.jpg": b"C"})
    bad, good = Archive(str(path))
    assert isinstance(bad, Item)
    assert (bad.ref, good) == ("error:invalid_item", Upload("c.jpg", b"C"))
    assert [custom_id for custom_id, _ in Archive(str(path)).ids()] == [bad.custom_id, "c.jpg"]


# -- manifests -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "text"),
    [
        (
            "list.jsonl",
            '{"custom_id": "7", "path": "a.jpg", "owner": 3}\n\n{"url": "https://h/b.jpg", "tags": ["x"]}\n',
        ),
        ("list.csv", 'custom_id,path,url,owner\n7,a.jpg,,3\n,,https://h/b.jpg,"x, ""y"""\n'),
        ("list.tsv", "custom_id\tpath\turl\towner\n7\ta.jpg\t\t3\n\t\thttps://h/b.jpg\tx\n"),
    ],
)
def test_a_manifest_names_images_and_carries_the_users_own_fields(name: str, text: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text("\ufeff" + text)
    first, second = Manifest(str(tmp_path / name))
    assert (first.custom_id, first.ref) == ("7", f"{tmp_path}/a.jpg")
    assert str((first.fields or {})["owner"]) == "3"
    assert (second.custom_id, second.ref) == ("https://h/b.jpg", "https://h/b.jpg")
    assert "custom_id" not in (second.fields or {})


def test_a_list_as_text_has_one_path_or_url_a_line(tmp_path: Path) -> None:
    (tmp_path / "list.txt").write_text("a.jpg\n\n  ./b/../c.jpg \r\n/abs/d.jpg\nhttps://h/e.jpg\ns3://bucket/f.jpg")
    assert [(item.custom_id, item.ref) for item in Manifest(str(tmp_path / "list.txt"))] == [
        ("a.jpg", f"{tmp_path}/a.jpg"),
        ("./b/../c.jpg", f"{tmp_path}/c.jpg"),
        ("/abs/d.jpg", "/abs/d.jpg"),
        ("https://h/e.jpg", "https://h/e.jpg"),
        ("s3://bucket/f.jpg", "s3://bucket/f.jpg"),
    ]


JSONL_LINES: dict[bytes, str] = {
    b'{"path": "a.jpg"}': "",
    b"{not json}": "no JSON",
    b"[1]": "no JSON object",
    b'{"custom_id": "x"}': "neither path nor url",
    b'{"path": "a", "url": "https://h/a"}': "both path and url",
    b'{"path": 7}': "must be text",
    b'{"custom_id": 7, "path": "b"}': "custom_id must be text",
    b'{"custom_id": "\\u0007", "path": "b"}': "control characters",
    b'{"url": "h/b.jpg"}': "must begin with",
    b'{"path": "file:a.jpg"}': "write the path",
    b'{"path": "caf\xe9.jpg"}': "no JSON",
    b'{"path": "b.jpg", "own": "%b"}' % (b"x" * MAX_FIELDS_BYTES): "own fields",
    b'{"path": "%b"}' % (b"x" * MAX_LINE_CHARS): "too long",
}


def test_every_bad_line_is_named_with_its_number_and_its_reason(tmp_path: Path) -> None:
    (tmp_path / "list.jsonl").write_bytes(b"\n".join(JSONL_LINES))
    bad = BadLines()
    manifest = Manifest(str(tmp_path / "list.jsonl"), on_bad=bad)
    assert ids(manifest) == ["a.jpg"]
    expected = [(str(n), reason) for n, reason in enumerate(JSONL_LINES.values(), start=1) if reason]
    assert [number for number, _ in bad] == [number for number, _ in expected]
    for (_, said), (number, reason) in zip(bad, expected, strict=True):
        assert reason in said, number
    assert ids(manifest) == ["a.jpg"]
    assert len(bad) == len(expected), "a line is named once, however often the list is read"


def test_a_table_names_the_lines_that_do_not_fit_its_header(tmp_path: Path) -> None:
    raw = b'path,owner\na.jpg,ann\nb.jpg\nc.jpg,x,y\n\n,tom\nd\xe9.jpg,tom\ne.jpg,\xff\n"f.jpg",ann\n'
    (tmp_path / "list.csv").write_bytes(raw)
    bad = BadLines()
    assert ids(Manifest(str(tmp_path / "list.csv"), on_bad=bad)) == ["a.jpg", "f.jpg"]
    assert [number for number, _ in bad] == ["3", "4", "6", "7", "8"]


@pytest.mark.parametrize("header", ["name,owner", "path,path", ""])
def test_a_table_without_a_column_of_images_is_refused(header: str, tmp_path: Path) -> None:
    (tmp_path / "list.csv").write_text(f"{header}\na,b\n")
    with pytest.raises(SourceError, match=r"list\.csv: the header"):
        list(Manifest(str(tmp_path / "list.csv")))


def test_strict_stops_after_every_bad_line_was_named(tmp_path: Path) -> None:
    (tmp_path / "list.jsonl").write_text('{"path": "a.jpg"}\nx\ny\n')
    bad = BadLines()
    with pytest.raises(SourceError, match="2 bad lines"):
        list(Manifest(str(tmp_path / "list.jsonl"), strict=True, on_bad=bad).ids())
    assert [number for number, _ in bad] == ["2", "3"]


# -- opening ---------------------------------------------------------------------------------------


def test_names_of_all_kinds_make_one_source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    touch(tmp_path / "dir/a.jpg", tmp_path / "b.any")
    archive_at(tmp_path / "c.zip", {"d.jpg": b"D"})
    (tmp_path / "list.txt").write_text("dir/a.jpg\n")
    source = open_source(["dir", "b.any", "c.zip", "list.txt", "https://h/e.jpg"], readable=lambda ref: True)
    assert sorted(ids(source)) == sorted(["dir/a.jpg", "b.any", "c.zip/d.jpg", "dir/a.jpg", "https://h/e.jpg"])
    assert not source.unique


class Name(str):
    """A name that counts how often names were compared."""

    __slots__ = ()
    compared = 0
    __hash__ = str.__hash__

    def __eq__(self, other: object) -> bool:
        Name.compared += 1
        return str.__eq__(self, other)


def test_many_names_are_not_compared_with_each_other(tmp_path: Path) -> None:
    names = [Name(tmp_path / f"{number}.jpg") for number in range(200)]
    for name in names:
        Path(name).touch()
    others = [Name(f"http://host/{number}.jpg") for number in range(200)]

    assert len(list(open_source([*names, *others], by="reference"))) == 400
    assert Name.compared < 4000  # each with each would be 80,000


@pytest.mark.parametrize("stdin", ["text", "jsonl", "csv", "zip", "tar.gz"])
def test_standard_input_is_a_list_or_an_archive(stdin: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    touch(tmp_path / "a.jpg")
    lists = {"text": b"a.jpg\n", "jsonl": b'{"path": "a.jpg"}\n', "csv": b"id,path\n1,a.jpg\n"}
    raw = lists.get(stdin) or archive_at(tmp_path / f"x.{stdin}", {"a.jpg": b"a.jpg"}).read_bytes()
    source = open_source(["-"], stdin=io.BytesIO(raw))
    for _ in range(2):  # ids are compared first, then the images are sent
        assert [(picture.custom_id, picture.data) for picture in source if isinstance(picture, Upload)] == [
            ("a.jpg", b"a.jpg")
        ]


def test_standard_input_can_be_named_once_only() -> None:
    with pytest.raises(UsageError, match="only once"):
        open_source(["-", "-"], stdin=io.BytesIO())


def test_an_archive_cannot_go_by_reference(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="by value"):
        open_source([archive_at(tmp_path / "a.zip")], by="reference")


def test_a_store_that_no_package_knows_says_so() -> None:
    with pytest.raises(UsageError, match=r"nosuch://"):
        open_source(["nosuch://bucket/x"])


# -- by reference or by value ----------------------------------------------------------------------


@pytest.mark.parametrize("root", ["any", ".", "x"])
def test_a_folder_of_which_workers_can_read_a_part_only_is_not_taken_for_the_whole(root: str, tmp_path: Path) -> None:
    touch(tmp_path / "any/a.jpg", tmp_path / "other/b.jpg")
    (tmp_path / "x").mkdir()
    source = open_source([tmp_path], readable=common_reach([Reach.of([tmp_path / root], [])]))
    sent = {picture.custom_id for picture in source if isinstance(picture, Item)}
    assert sent == {"any": {"any/a.jpg"}, ".": {"any/a.jpg", "other/b.jpg"}, "x": set()}[root]


@pytest.mark.parametrize(("reach", "alone"), [("", ["a.jpg", "b.jpg"]), ("/a.jpg", []), ("/nowhere", [])])
def test_what_lies_in_a_folder_that_workers_can_read_is_named_by_its_custom_id_alone(
    reach: str, alone: list[str], tmp_path: Path
) -> None:
    touch(tmp_path / "a.jpg", tmp_path / "b.jpg")
    source = open_source([tmp_path], readable=lambda ref: ref.startswith(f"{tmp_path}{reach}"))
    assert isinstance(source, Named)
    named = list(source.named())
    assert [picture for picture in named if isinstance(picture, str)] == alone
    assert [picture.custom_id for picture in source] == ["a.jpg", "b.jpg"]
    by_reference = [picture.custom_id for picture in source if isinstance(picture, Item)]
    assert by_reference == (["a.jpg", "b.jpg"] if not reach else ["a.jpg"] if reach == "/a.jpg" else [])


@pytest.mark.parametrize(
    ("by", "sent"),
    [
        ("reference", [("in/a.jpg", "by reference"), ("out/b.jpg", "by reference")]),
        ("value", [("in/a.jpg", "by value"), ("out/b.jpg", "by value")]),
        ("auto", [("in/a.jpg", "by reference"), ("out/b.jpg", "by value")]),
    ],
)
def test_what_workers_can_read_goes_by_reference(by: str, sent: list[tuple[str, str]], tmp_path: Path) -> None:
    touch(tmp_path / "in/a.jpg", tmp_path / "out/b.jpg")
    source = open_source([tmp_path], by=by, readable=lambda ref: ref.startswith(f"{tmp_path}/in/"))  # type: ignore[arg-type]
    assert [(p.custom_id, "by value" if isinstance(p, Upload) else "by reference") for p in source] == sent


def test_an_image_that_cannot_be_read_here_is_an_item_that_fails(tmp_path: Path) -> None:
    (tmp_path / "list.txt").write_text("none.jpg\nbig.jpg\n")
    (tmp_path / "big.jpg").write_bytes(b"x" * 11)
    source = ByValue(Manifest(str(tmp_path / "list.txt")), max_bytes=10)
    assert list(source) == [Item("none.jpg", "error:not_found"), Item("big.jpg", "error:too_large")]


@pytest.fixture
def web_server() -> Iterator[Callable[[str], str]]:
    """A real server: /ok..., /cut.jpg ends too early, /twice.jpg is there the third time, /<status>.jpg."""
    asked: Counter[str] = Counter()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked[self.path] += 1
            busy = self.path == "/twice.jpg" and asked[self.path] < 3
            number = self.path[1:4]
            self.send_response(503 if busy else int(number) if number.isdigit() else 200)
            self.send_header("Content-Length", "500" if self.path == "/cut.jpg" else "5")
            self.end_headers()
            self.wfile.write(b"bytes")

        def log_message(self, format: str, *args: object) -> None:
            """Nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield lambda path: f"http://127.0.0.1:{server.server_port}{path}"
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.mark.parametrize("name", ["/ok.jpg", "/ok a b.jpg", "/ok-ä.jpg?n=ü", "/ok%20c.jpg", "/twice.jpg"])
def test_urls_that_workers_may_not_fetch_are_fetched_here(
    name: str, web_server: Callable[[str], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(asking, "FIRST_WAIT_S", 0.001)
    assert list(open_source([web_server(name)])) == [Upload(web_server(name), b"bytes")]


@pytest.mark.parametrize(
    ("name", "code"),
    [
        ("/404.jpg", "not_found"),
        ("/410.jpg", "not_found"),
        ("/403.jpg", "forbidden"),
        ("/400.jpg", "invalid_item"),
        ("/500.jpg", "fetch_failed"),
        ("/cut.jpg", "fetch_failed"),
    ],
)
def test_a_url_that_cannot_be_fetched_here_fails_as_at_a_worker(
    name: str, code: str, web_server: Callable[[str], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(asking, "FIRST_WAIT_S", 0.001)
    assert list(open_source([web_server(name)])) == [Item(web_server(name), f"error:{code}")]


@pytest.mark.parametrize("url", ["http://[half/a.jpg", "http://h:port/a.jpg", "http:///a.jpg"])
def test_what_is_no_url_is_an_item_that_fails(url: str) -> None:
    assert list(open_source([url])) == [Item(url, "error:invalid_item")]


def test_images_of_a_program_that_come_once_can_be_gone_through_again() -> None:
    pictures = [Item("a", "/a.jpg"), Upload("b", b"\x00\n", {"n": 1}), Upload("c", b"")]
    kept = Pictures(iter(pictures))
    assert list(kept) == pictures
    assert list(kept) == pictures
    assert orjson.dumps({"n": 1}) == orjson.dumps(list(kept)[1].fields)


def test_images_that_come_once_lose_none_to_a_first_look_and_are_not_taken_for_all_when_asked_again() -> None:
    pictures = [Item(str(number), f"/{number}") for number in range(5)]
    once = Pictures(iter(pictures), unique=True)
    check_ids(once)
    assert next(iter(once)) == pictures[0]
    assert list(once) == pictures
    with pytest.raises(SourceError, match="only once"):
        list(once)


def test_a_server_that_does_not_answer_is_named() -> None:
    with pytest.raises(SourceError, match=r"cannot read ftp://127\.0\.0\.1:1/a\.jpg: Connection refused"):
        open_source(["ftp://127.0.0.1:1/a.jpg"])
