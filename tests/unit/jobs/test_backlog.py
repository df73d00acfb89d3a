"""The backlog's figures: what is counted, at which rate it is worked off, and who writes them down."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from fakeredis import FakeRedis

from jobs.backlog import BacklogWatch, Seen, measure, measured_rate, read
from jobs.items import Item, encode_chunk
from jobs.ledger import JobRequest, Ledger
from jobs.registry import ModelInfo, Registry, WorkerInfo
from tests.support.books import chunk_of


class SilentBell:
    """No single request waits."""

    def waiting(self, lane: str) -> int:
        return 0


@pytest.fixture
def redis() -> Iterator[FakeRedis]:
    client = FakeRedis()
    yield client
    client.close()


@pytest.fixture
def watch(redis: FakeRedis) -> BacklogWatch:
    return BacklogWatch(redis, SilentBell())  # type: ignore[arg-type]


def announce(redis: FakeRedis, *, processes: int, rate: float, node: str = "a") -> None:
    model = ModelInfo("m", "sha256:0", images_per_s=rate)
    Registry(redis).announce(WorkerInfo(node, "READY", "host", 1, processes, (model,)))


def submit(redis: FakeRedis, images: int) -> Ledger:
    ledger = Ledger(redis)
    ledger.create("job", JobRequest(model="m"))
    ledger.submit("job", 0, encode_chunk([Item(str(i), str(i)) for i in range(images)]))
    return ledger


def test_seconds_are_images_over_processes_and_their_rate(redis: FakeRedis, watch: BacklogWatch) -> None:
    announce(redis, processes=2, rate=5.0)
    submit(redis, 100)
    assert watch.look()["m"].seconds == 10.0
    assert redis.get("lm:backlog:m") == b"10.0"
    assert redis.get("lm:backlog_items:m") == b"100"
    assert read(redis, ["m", "other"]) == {"m": watch.look()["m"]}


def test_leased_images_count_until_they_are_finished(redis: FakeRedis, watch: BacklogWatch) -> None:
    ledger = submit(redis, 4)
    claim = ledger.claim("m.bulk", "token", lease_s=10)
    assert claim is not None
    assert watch.look()["m"].items == 4
    ledger.finish(claim, succeeded=4, failed=0, results=b"[]\n[]\n[]\n[]", digest="d")
    assert watch.look()["m"].items == 0


def test_without_a_worker_the_seconds_are_those_of_one_process(redis: FakeRedis, watch: BacklogWatch) -> None:
    announce(redis, processes=4, rate=10.0)
    submit(redis, 100)
    watch.look()
    Registry(redis).withdraw("a")
    assert watch.look()["m"].seconds == 10.0


def test_figures_lapse_when_nobody_looks(redis: FakeRedis, watch: BacklogWatch) -> None:
    submit(redis, 1)
    watch.look()
    assert 0 < redis.ttl("lm:backlog:m") <= 30


def test_the_rate_is_measured_while_work_waits() -> None:
    assert measure(Seen(finished=600, processes=3, saturated=True), 0.0, 2.0) == 100.0
    assert measure(Seen(finished=600, processes=3), 0.0, 2.0) == 0.0, "that is no measurement"


def test_a_changed_rate_is_believed_slowly() -> None:
    seen = Seen(finished=400, processes=1, saturated=True)
    assert 100.0 < measure(seen, 100.0, 2.0) < 150.0
    assert measure(seen, 100.0, 60.0) < 100.0, "400 in a minute are slower than believed"


def test_what_a_worker_found_at_its_start_weighs_nothing_once_it_was_measured(
    redis: FakeRedis, watch: BacklogWatch
) -> None:
    announce(redis, processes=1, rate=1e6)
    ledger = submit(redis, 2)
    for number in (1, 2):
        ledger.submit("job", number, chunk_of([f"{number}"]))
    watch.look()
    assert measured_rate(redis, "m") == 0.0
    claim = ledger.claim("m.bulk", "token", lease_s=10)
    assert claim is not None
    ledger.finish(claim, succeeded=2, failed=0, results=b"[]\n[]", digest="d")
    watch.look()
    assert 0.0 < measured_rate(redis, "m") < 1e5


def test_jobs_that_were_deleted_meanwhile_are_no_measurement(redis: FakeRedis, watch: BacklogWatch) -> None:
    announce(redis, processes=1, rate=10.0)
    ledger = submit(redis, 2)
    ledger.submit("job", 1, chunk_of(["more"]))
    ledger.create("other", JobRequest(model="m"))
    ledger.submit("other", 0, chunk_of(["theirs"]))
    watch.look()
    ledger.delete("other")
    claim = ledger.claim("m.bulk", "token", lease_s=10)
    assert claim is not None
    ledger.finish(claim, succeeded=2, failed=0, results=b"[]\n[]", digest="d")
    watch.look()
    assert measured_rate(redis, "m") == 0.0, "what was done of the other job is not known"
