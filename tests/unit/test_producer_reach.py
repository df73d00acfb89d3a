"""What workers can read themselves, as a producer sees it."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import orjson
import pytest

from jobs.reach import Reach, common_reach


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


@pytest.mark.parametrize(
    ("hosts", "url", "readable"),
    [
        (["h.org"], "https://h.org/a.jpg", True),
        (["h.org"], "https://h.org:443/a.jpg", True),
        (["h.org"], "https://h.org:8443/a.jpg", False),
        (["h.org:8443"], "https://h.org:8443/a.jpg", True),
        (["*.h.org"], "https://a.h.org/a.jpg", True),
        (["*.h.org"], "https://h.org/a.jpg", False),
        (["*"], "http://any.org/a.jpg", True),
        ([], "http://any.org/a.jpg", False),
        (["h.org"], "http://h.org:x/a.jpg", False),
        (["s3://photos"], "s3://photos/a.jpg", True),
        (["s3://photos"], "s3://photos-2/a.jpg", False),
        (["s3://photos/in"], "s3://photos/out/a.jpg", False),
    ],
)
def test_hosts_and_buckets_are_read_as_workers_read_them(hosts: list[str], url: str, readable: bool) -> None:
    assert common_reach([Reach.of([], hosts)])(url) is readable


def test_it_survives_the_way_through_redis(tmp_path: Path) -> None:
    reach = Reach.of([tmp_path], ["h"])
    assert Reach.from_json(orjson.loads(orjson.dumps(reach.as_json()))) == reach
