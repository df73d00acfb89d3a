"""What workers can read themselves, as a producer sees it."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import orjson
import pytest

from jobs.errors import ForbiddenError, ItemError
from jobs.reach import Reach, common_reach
from producer.sources import Files
from worker import urls
from worker.fetch import Fetcher
from worker.stores import Stores


def test_the_same_folder_on_the_same_host_is_readable(tmp_path: Path) -> None:
    readable = common_reach([Reach.of([tmp_path], [])])
    assert readable(f"{tmp_path}/a.jpg")
    assert not readable(f"{tmp_path}-2/a.jpg")
    assert not readable(f"{tmp_path}/../a.jpg")


def test_a_folder_of_another_host_must_be_the_same_share(tmp_path: Path) -> None:
    here = Reach.of([tmp_path], [])
    ((path, device, inode, changed),) = here.roots
    shared = replace(here, host="elsewhere", roots=((path, device + 1, inode, changed),))
    assert common_reach([shared])(f"{tmp_path}/a.jpg")
    other = replace(shared, roots=((path, device, inode, changed + 1),))
    assert not common_reach([other])(f"{tmp_path}/a.jpg"), "another folder by the same name"


def test_a_root_that_no_reference_can_name_is_not_told_of(tmp_path: Path) -> None:
    odd = tmp_path / os.fsdecode(b"odd\xff")
    odd.mkdir()
    reach = Reach.of([odd, tmp_path], [])
    assert [root[0] for root in reach.roots] == [str(tmp_path)]
    assert Reach.from_json(orjson.loads(orjson.dumps(reach.as_json()))) == reach


def test_every_worker_must_be_able_to_read_it(tmp_path: Path) -> None:
    for name in ("a", "b"):
        os.mkdir(tmp_path / name)
    both, one = Reach.of([tmp_path / "a", tmp_path / "b"], ["h"]), Reach.of([tmp_path / "a"], [])
    readable = common_reach([both, one])
    assert readable(f"{tmp_path}/a/x.jpg")
    assert not readable(f"{tmp_path}/b/x.jpg")
    assert not readable("https://h/x.jpg")
    assert not common_reach([])(f"{tmp_path}/a/x.jpg"), "of no worker nothing is known"


def test_a_root_that_is_not_there_is_left_out(tmp_path: Path) -> None:
    assert Reach.of([tmp_path / "none"], []).roots == ()


HOSTS = [
    [],
    ["h.org"],
    ["H.org", "s3://photos"],
    ["h.org:8443"],
    ["*.h.org", "s3://photos/in/"],
    ["*"],
    ["[2001:db8::1]:80", "127.0.0.1:8080"],
    ["[2606:4700::1111]"],
    ["127.0.0.1", "bücher.example", "gs://photos"],
]
REFS = [
    "https://h.org/a.jpg",
    "HTTPS://h.org/a.jpg",
    "https://H.ORG./a.jpg",
    "https://h.org:443/a.jpg",
    "https://h.org:80/a.jpg",
    "https://h.org:8443/a.jpg",
    "https://h.org:0/a.jpg",
    "https://a.h.org/a.jpg",
    "https://a.b.h.org/a.jpg",
    "https://ah.org/a.jpg",
    "https://*.h.org/a.jpg",
    "https://me:secret@h.org/a.jpg",
    "http://[2001:db8::1]/a.jpg",
    "http://[2606:4700::1111]/a.jpg",
    "http://127.0.0.1/a.jpg",
    "http://127.0.0.1:8080/a.jpg",
    "http://127.0.0.1./a.jpg",
    "http://224.0.0.1/a.jpg",
    "http://[::ffff:10.0.0.1]/a.jpg",
    "http://[64:ff9b::a00:1]/a.jpg",
    "http://[2002:7f00:1::]/a.jpg",
    "http://[fec0::1]/a.jpg",
    "http://[ff0e::1]/a.jpg",
    "http://bücher.example/a.jpg",
    "http://xn--bcher-kva.example/a.jpg",
    "http://h.org:x/a.jpg",
    "http://[half/a.jpg",
    "http:///a.jpg",
    "http://-/a.jpg",
    "s3://photos/a.jpg",
    "s3://photos/in/a.jpg",
    "s3://photos/in/../a.jpg",
    "s3://photos/./in/a.jpg",
    "s3://photos::file:///etc/passwd",
    "s3://photos-2/a.jpg",
    "gs://photos/a.jpg",
    "S3://photos/a.jpg",
]


class AskedError(BaseException):
    """A worker would ask for it now."""


def is_allowed(hosts: list[str], ref: str, monkeypatch: pytest.MonkeyPatch) -> bool:
    """What a worker's own fetcher says, up to the point where it would ask; a name has a public address here."""

    def ask(*args: object, **kwargs: object) -> bytes:
        raise AskedError

    monkeypatch.setattr(Stores, "_system", ask)
    monkeypatch.setattr(urls._Connection, "request", ask)
    monkeypatch.setattr(urls._Connection, "connect", lambda self: None)
    fetcher = Fetcher(url_hosts=hosts, resolve=lambda host, port: [host if is_address(host) else "93.184.216.34"])
    try:
        fetcher.fetch(ref)
    except AskedError:
        return True
    except ItemError:
        return False
    raise AssertionError("nothing can come")


def is_address(host: str) -> bool:
    return ":" in host or host.replace(".", "").isdigit()


@pytest.mark.parametrize("hosts", HOSTS, ids=lambda hosts: ",".join(hosts) or "none")
def test_hosts_and_buckets_are_read_as_workers_read_them(hosts: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    readable = common_reach([Reach.of([], hosts)])
    said = {ref: readable(ref) for ref in REFS}
    assert said == {ref: is_allowed(hosts, ref, monkeypatch) for ref in REFS}
    assert any(said.values()) == bool(hosts)


def test_workers_may_say_the_same_in_other_words() -> None:
    readable = common_reach([Reach.of([], ["*.h.org"]), Reach.of([], ["a.h.org", "b.h.org"])])
    assert readable("https://a.h.org/x.jpg")
    assert not readable("https://c.h.org/x.jpg")


def test_a_link_that_leads_out_of_the_roots_is_not_readable_and_workers_say_so_too(tmp_path: Path) -> None:
    inside, outside = tmp_path / "in", tmp_path / "out"
    for folder in (inside / "sub", outside):
        folder.mkdir(parents=True)
        (folder / "real.jpg").write_bytes(b"bytes")
    (inside / "near.jpg").symlink_to("sub/real.jpg")
    (inside / "far.jpg").symlink_to(outside / "real.jpg")
    (inside / "folder").symlink_to(outside)
    readable, fetcher = common_reach([Reach.of([inside], [])]), Fetcher(file_roots=[inside])
    items = {item.custom_id: item.ref for item in Files([inside])}
    items["folder/real.jpg"] = f"{inside}/folder/real.jpg"  # as a list may name it
    assert {name: readable(ref) for name, ref in items.items()} == {
        "far.jpg": False,
        "near.jpg": True,
        "sub/real.jpg": True,
        "folder/real.jpg": False,
    }
    for ref in items.values():
        if readable(ref):
            assert fetcher.fetch(ref) == b"bytes"
        else:
            with pytest.raises(ForbiddenError):
                fetcher.fetch(ref)
    assert next(iter(Files([inside / "far.jpg"]))).ref == f"{outside}/real.jpg"


def test_it_survives_the_way_through_redis(tmp_path: Path) -> None:
    reach = Reach.of([tmp_path], ["h"])
    assert Reach.from_json(orjson.loads(orjson.dumps(reach.as_json()))) == reach
