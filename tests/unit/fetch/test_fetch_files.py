"""Files under the folders that workers may read, and the ways out of them that are closed."""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from jobs.errors import ForbiddenError, InvalidItemError, ItemError, NotFoundError, TooLargeError
from worker import roots
from worker.fetch import Fetcher

SECRET = b"what nobody may read"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    folder = tmp_path / "open"
    (folder / "cats").mkdir(parents=True)
    (folder / "cats" / "tom.jpg").write_bytes(b"tom")
    (tmp_path / "secret.txt").write_bytes(SECRET)
    return folder


@pytest.fixture
def fetch(root: Path) -> Callable[[str], bytes]:
    return Fetcher(file_roots=(root,)).fetch


def test_a_file_is_read_by_its_full_path(root: Path, fetch: Callable[[str], bytes]) -> None:
    assert fetch(f"{root}/cats/tom.jpg") == b"tom"


def test_a_file_is_read_by_its_path_in_the_root(fetch: Callable[[str], bytes]) -> None:
    assert fetch("cats/tom.jpg") == b"tom"
    assert fetch("cats/../cats/./tom.jpg") == b"tom"


def test_an_empty_file_is_an_empty_file(root: Path, fetch: Callable[[str], bytes]) -> None:
    (root / "empty").touch()
    assert fetch("empty") == b""


def test_a_name_with_odd_characters_is_a_name(root: Path, fetch: Callable[[str], bytes]) -> None:
    for name in ("grüße 猫.jpg", "a:b.jpg", "100%.jpg", "-rf", "data:image", " "):
        (root / name).write_bytes(name.encode())
        assert fetch(name) == name.encode()


def test_the_first_root_that_has_it_gives_a_relative_path(tmp_path: Path) -> None:
    for name, files in (("one", ["a"]), ("two", ["a", "b"])):
        (tmp_path / name).mkdir()
        for file in files:
            (tmp_path / name / file).write_text(f"{name}/{file}")
    fetch = Fetcher(file_roots=(tmp_path / "one", tmp_path / "two")).fetch
    assert (fetch("a"), fetch("b")) == (b"one/a", b"two/b")
    with pytest.raises(NotFoundError):
        fetch("c")


def test_a_missing_file_in_a_root_is_not_found(root: Path, fetch: Callable[[str], bytes]) -> None:
    for ref in ("nothing.jpg", f"{root}/cats/nothing.jpg", "cats/tom.jpg/deeper"):
        with pytest.raises(NotFoundError):
            fetch(ref)


def test_without_roots_no_file_is_read(root: Path) -> None:
    for ref in (f"{root}/cats/tom.jpg", "cats/tom.jpg"):
        with pytest.raises(ForbiddenError, match="LABELMILL_FILE_ROOTS"):
            Fetcher().fetch(ref)


def test_the_root_of_all_can_be_opened(root: Path) -> None:
    assert Fetcher(file_roots=(Path("/"),)).fetch(f"{root}/cats/tom.jpg") == b"tom"


# -- the ways out ---------------------------------------------------------------------------------


def message_of(fetch: Callable[[str], bytes], ref: str) -> str:
    with pytest.raises(ForbiddenError) as raised:
        fetch(ref)
    return raised.value.message


def test_outside_the_roots_nothing_tells_what_exists(root: Path, fetch: Callable[[str], bytes]) -> None:
    outside = root.parent
    (root / "link").symlink_to(outside)
    (root / "dangling").symlink_to(outside / "nothing")
    (root / "loop").symlink_to(root / "loop")
    refs = [
        *(f"{outside}/secret.txt", f"{outside}/nothing", "../secret.txt", "../nothing", "cats/../../secret.txt"),
        *(f"{root}/../secret.txt", f"{root}/../nothing", str(outside), "/etc/passwd", "/nothing"),
        *("link/secret.txt", "link/nothing", "link/nothing/deeper", "dangling", "link", "cats/../link/secret.txt"),
        *(f"{root}x/secret.txt", f"{root}-not/secret.txt", "//etc/passwd", "/proc/self/environ", "/dev/stdin"),
    ]
    assert len({message_of(fetch, ref) for ref in refs}) == 1
    with pytest.raises(NotFoundError):
        fetch("loop")


def test_a_parent_of_a_link_is_the_parent_of_where_it_leads(root: Path, fetch: Callable[[str], bytes]) -> None:
    # read as text, link/../secret.txt is in the root; the kernel goes where the link goes
    (root.parent / "elsewhere").mkdir()
    (root / "link").symlink_to(root.parent / "elsewhere")
    (root / "secret.txt").write_bytes(b"harmless")
    message_of(fetch, "link/../secret.txt")
    message_of(fetch, "link/../nothing")


def test_a_link_from_a_root_into_a_root_is_followed(root: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    (other / "rex.jpg").write_bytes(b"rex")
    (root / "near").symlink_to("cats/tom.jpg")
    (root / "far").symlink_to(other / "rex.jpg")
    assert Fetcher(file_roots=(root,)).fetch("near") == b"tom"
    assert Fetcher(file_roots=(root, other)).fetch("far") == b"rex"
    message_of(Fetcher(file_roots=(root,)).fetch, "far")


def test_a_root_may_be_a_link_itself(root: Path, tmp_path: Path) -> None:
    named = tmp_path / "named"
    named.symlink_to(root)
    fetch = Fetcher(file_roots=(named,)).fetch
    assert fetch(f"{named}/cats/tom.jpg") == fetch(f"{root}/cats/tom.jpg") == fetch("cats/tom.jpg") == b"tom"


def test_a_link_that_changes_while_it_is_read_never_leads_out(root: Path, fetch: Callable[[str], bytes]) -> None:
    link, spare = root / "link", root / "spare"
    stop = threading.Event()

    def swap() -> None:
        while not stop.is_set():
            for goal in (root.parent / "secret.txt", root / "cats" / "tom.jpg"):
                spare.symlink_to(goal)
                spare.replace(link)

    link.symlink_to(root / "cats" / "tom.jpg")
    thread = threading.Thread(target=swap)
    thread.start()
    seen: set[object] = set()
    try:
        while seen < {b"tom", "forbidden"}:
            for _ in range(500):
                try:
                    seen.add(fetch("link"))
                except ItemError as error:
                    seen.add(error.code)
    finally:
        stop.set()
        thread.join()
    assert seen == {b"tom", "forbidden"}


def test_a_folder_that_was_read_from_is_no_way_out(root: Path, fetch: Callable[[str], bytes]) -> None:
    cats, outside = root / "cats", root.parent / "outside"
    outside.mkdir()
    (outside / "tom.jpg").write_bytes(SECRET)
    assert fetch("cats/tom.jpg") == b"tom"
    (cats / "link").symlink_to(outside / "tom.jpg")
    message_of(fetch, "cats/link")
    cats.rename(root / "dogs")
    cats.symlink_to(outside)
    assert fetch("cats/tom.jpg") == b"tom"  # the folder that is held, by whatever name
    message_of(Fetcher(file_roots=(root,)).fetch, "cats/tom.jpg")


def test_a_folder_is_held_for_a_moment_only(
    root: Path, fetch: Callable[[str], bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(roots, "HELD_S", -1.0)
    assert fetch("cats/tom.jpg") == b"tom"
    (root / "cats").rename(root.parent / "moved")
    (root / "cats").symlink_to(root.parent / "moved")
    message_of(fetch, "cats/tom.jpg")


def test_what_is_no_regular_file_is_refused_without_waiting(root: Path, fetch: Callable[[str], bytes]) -> None:
    os.mkfifo(root / "pipe")
    for ref in ("pipe", "cats", str(root), "cats/"):
        with pytest.raises(InvalidItemError, match="regular file"):
            fetch(ref)


@pytest.mark.parametrize("ref", ["", "a\0b", "a\nb", "\x1b[31m", "a\x7f", "caf\udce9.jpg"])
def test_a_reference_with_control_characters_is_invalid(fetch: Callable[[str], bytes], ref: str) -> None:
    with pytest.raises(InvalidItemError):
        fetch(ref)


def test_a_path_longer_than_the_system_takes_is_invalid(fetch: Callable[[str], bytes]) -> None:
    with pytest.raises(InvalidItemError, match="too long"):
        fetch("x" * 300)


@contextmanager
def as_another_user() -> Iterator[None]:
    """Root may read everything, so it steps down; others cannot read what is closed to all."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


def test_a_file_without_permission_is_forbidden(root: Path, fetch: Callable[[str], bytes]) -> None:
    closed = root / "closed.jpg"
    closed.write_bytes(b"closed")
    closed.chmod(0)
    with as_another_user(), pytest.raises(ForbiddenError):
        fetch("closed.jpg")


def test_a_file_over_the_limit_is_too_large(root: Path) -> None:
    (root / "big").write_bytes(bytes(1001))
    assert len(Fetcher(file_roots=(root,), max_bytes=1001).fetch("big")) == 1001
    with pytest.raises(TooLargeError, match="1001 bytes; at most 1000"):
        Fetcher(file_roots=(root,), max_bytes=1000).fetch("big")


def test_a_file_that_holds_more_than_it_says_is_read_up_to_the_limit() -> None:
    # files of /proc say that they have 0 bytes, as one that is just being written may
    proc = Path("/proc/self")
    assert b"Pid:" in Fetcher(file_roots=(proc,)).fetch("/proc/self/status")
    with pytest.raises(TooLargeError, match="more than 10 bytes"):
        Fetcher(file_roots=(proc,), max_bytes=10).fetch("/proc/self/status")


def test_no_descriptor_is_left_open(root: Path, fetch: Callable[[str], bytes]) -> None:
    os.mkfifo(root / "pipe")
    (root / "out").symlink_to("/etc/hostname")
    for ref in ["cats/tom.jpg", "nothing", "pipe", "out", "../x"] * 5:
        try:
            fetch(ref)
        except ItemError as error:
            assert error.code in {"not_found", "invalid_item", "forbidden"}  # noqa: PT017 - either way is right
    assert not {place for place in open_places() if place.startswith((str(root.parent), "/etc/hostname"))}


def open_places() -> set[str]:
    """Where the open descriptors of this process lead."""
    found = set()
    for link in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):  # the one by which they are listed
            found.add(os.readlink(link))
    return found


# -- blobs ----------------------------------------------------------------------------------------


def test_a_blob_comes_from_whoever_holds_it() -> None:
    fetch = Fetcher(blobs={"key": b"bytes"}.get, max_bytes=5).fetch
    assert fetch("blob:key") == b"bytes"
    with pytest.raises(NotFoundError):
        fetch("blob:other")


def test_a_blob_over_the_limit_is_too_large() -> None:
    with pytest.raises(TooLargeError):
        Fetcher(blobs={"key": b"bytes"}.get, max_bytes=4).fetch("blob:key")


def test_without_a_holder_no_blob_is_found() -> None:
    with pytest.raises(NotFoundError):
        Fetcher().fetch("blob:key")
