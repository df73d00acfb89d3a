"""Webhooks: claimed by one, signed, repeated until they are heard."""

from __future__ import annotations

import base64
import hashlib
import hmac
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

import fakeredis
import orjson
import pytest

from jobs.errors import UsageError
from jobs.items import Item, encode_chunk
from jobs.ledger import JobRequest, Ledger
from jobs.webhooks import ATTEMPTS, Herald, check_webhook, sign

SECRET = "whsec_" + base64.b64encode(b"a secret of ours").decode()


class Listener:
    """A real server that answers as it is told and keeps what it heard."""

    def __init__(self) -> None:
        self.answers: list[int] = []
        self.heard: list[tuple[dict[str, str], bytes]] = []
        listener = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                listener.heard.append(({k.lower(): v for k, v in self.headers.items()}, body))
                status = listener.answers.pop(0) if listener.answers else 204
                self.send_response(status)
                if status == 302:
                    self.send_header("location", listener.url("/elsewhere"))
                self.end_headers()

            def log_message(self, format: str, *args: object) -> None:
                """Nothing."""

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.host = f"127.0.0.1:{self.server.server_port}"

    def url(self, path: str = "/hook") -> str:
        return f"http://{self.host}{path}"


@pytest.fixture
def listener() -> Iterator[Listener]:
    made = Listener()
    thread = Thread(target=made.server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    yield made
    made.server.shutdown()
    made.server.server_close()
    thread.join()


@pytest.fixture
def ledger() -> Ledger:
    return Ledger(fakeredis.FakeRedis(version=(6, 2)))


def ended_job(ledger: Ledger, url: str, job: str = "job-1") -> None:
    ledger.create(job, JobRequest("noop", webhook=url, metadata={"owner": "ann"}))
    ledger.submit(job, 0, encode_chunk([Item("a", "/a")]))
    ledger.seal(job)
    ledger.cancel(job)
    assert ledger.status(job).ended


def make_due(ledger: Ledger, job: str = "job-1") -> None:
    ledger.redis.zadd(f"{ledger.prefix}webhooks", {job: 0}, xx=True)


def test_an_ended_job_is_told_once_with_its_counts_and_a_signature(ledger: Ledger, listener: Listener) -> None:
    ended_job(ledger, listener.url())
    herald = Herald(ledger, [listener.host], secret=SECRET)
    assert (herald.look(), herald.look()) == (1, 0)
    ((headers, body),) = listener.heard
    told = orjson.loads(body)
    assert told["type"] == "job.ended"
    assert (told["data"]["id"], told["data"]["metadata"]) == ("job-1", {"owner": "ann"})
    assert told["data"]["request_counts"]["cancelled"] == 1
    signed = f"{headers['webhook-id']}.{headers['webhook-timestamp']}.".encode() + body
    expected = base64.b64encode(hmac.digest(b"a secret of ours", signed, hashlib.sha256)).decode()
    assert headers["webhook-signature"] == f"v1,{expected}"
    assert ledger.status("job-1").webhook_state == "delivered"


def test_a_call_that_failed_comes_again_with_the_same_id(ledger: Ledger, listener: Listener) -> None:
    ended_job(ledger, listener.url())
    listener.answers = [500, 302]
    herald = Herald(ledger, [listener.host])
    delivered = []
    for _ in range(4):
        delivered.append(herald.look())
        make_due(ledger)
    assert delivered == [0, 0, 1, 0]
    assert len({headers["webhook-id"] for headers, _ in listener.heard}) == 1
    assert len(listener.heard) == 3, "a redirect is not followed"
    assert ledger.status("job-1").webhook_attempts == 3


def test_who_claims_dies_and_another_one_calls_after_the_wait(ledger: Ledger, listener: Listener) -> None:
    ended_job(ledger, listener.url())
    assert ledger.webhook("claim", "job-1", 15_000, 60_000, ATTEMPTS) is not None
    herald = Herald(ledger, [listener.host])
    assert herald.look() == 0, "it is another one's until the wait is over"
    make_due(ledger)
    assert herald.look() == 1


def test_what_is_never_heard_is_given_up(ledger: Ledger) -> None:
    ended_job(ledger, "http://127.0.0.1:1/hook")
    herald = Herald(ledger, ["127.0.0.1"])
    for _ in range(ATTEMPTS + 1):
        assert herald.look() == 0
        make_due(ledger)
    status = ledger.status("job-1")
    assert (status.webhook_state, status.webhook_attempts) == ("failed", ATTEMPTS)
    assert not ledger.redis.exists(f"{ledger.prefix}webhooks")


def test_hosts_that_the_operator_does_not_name_are_not_called(ledger: Ledger, listener: Listener) -> None:
    ended_job(ledger, listener.url())
    for hosts in ([], ["example.org"], ["127.0.0.1:1"]):
        assert Herald(ledger, hosts).look() == 0
    assert listener.heard == []
    assert ledger.status("job-1").webhook_attempts == 0, "another process may call it"


def test_a_deleted_job_is_not_told(ledger: Ledger, listener: Listener) -> None:
    ended_job(ledger, listener.url())
    ledger.delete("job-1")
    assert Herald(ledger, [listener.host]).look() == 0
    assert listener.heard == []
    assert not ledger.redis.keys("*job*"), "nothing of it is left"
    assert not ledger.redis.exists(f"{ledger.prefix}webhooks")


def test_a_job_that_ends_again_is_told_again_under_another_id(ledger: Ledger, listener: Listener) -> None:
    ledger.create("job-1", JobRequest("noop", webhook=listener.url()))
    ledger.submit("job-1", 0, encode_chunk([Item("a", "/a")]))
    ledger.seal("job-1")
    herald = Herald(ledger, [listener.host])
    for token in ("t1", "t2"):
        claim = ledger.claim("noop.bulk", token, lease_s=60)
        assert claim is not None
        ledger.finish(claim, succeeded=0, failed=1, results=b'["corrupt_image",""]', digest="")
        assert herald.look() == 1
        ledger.retry("job-1", ledger.last_entry("job-1"), [0], expires_s=60)
        assert herald.look() == 0
    assert len({headers["webhook-id"] for headers, _ in listener.heard}) == 2


@pytest.mark.parametrize(
    "url",
    [
        "ftp://h/x",
        "h/x",
        "http://",
        "http://h/\n",
        "https://h/" + "x" * 3000,
        "http://[::1",
        "http://h:x",
        "http://h:99999",
    ],
)
def test_what_cannot_be_called_is_refused_at_submit(url: str) -> None:
    with pytest.raises(UsageError, match="webhook must be"):
        check_webhook(url)


def test_a_secret_that_is_no_base64_says_so() -> None:
    with pytest.raises(UsageError, match="LABELMILL_WEBHOOK_SECRET"):
        sign("whsec_***", "id", 0, b"")


def test_no_herald_begins_with_a_secret_that_cannot_sign(ledger: Ledger) -> None:
    with pytest.raises(UsageError, match="LABELMILL_WEBHOOK_SECRET"):
        Herald(ledger, (), secret="whsec_***")
