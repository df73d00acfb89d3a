"""URLs of a Redis behind Sentinels."""

from __future__ import annotations

import pytest

from jobs.connection import connect
from jobs.errors import UsageError
from jobs.sentinel import parse
from jobs.settings import Settings


def test_addresses_and_access_are_read_in_celerys_form() -> None:
    addresses, access = parse("sentinel://me:p%40ss@a:26380;sentinel://b/3")
    assert addresses == [("a", 26380), ("b", 26379)]
    assert access == {"db": 3, "username": "me", "password": "p@ss"}


@pytest.mark.parametrize("url", ["sentinel://", "sentinel://a;redis://b", "sentinel://a/x", "sentinel://a:port"])
def test_a_url_that_is_none_is_a_usage_error(url: str) -> None:
    with pytest.raises(UsageError):
        connect(Settings(broker_url=url))


def test_ledger_and_results_go_where_tickets_go() -> None:
    settings = Settings(broker_url="sentinel://a;sentinel://b")
    assert settings.redis_url == settings.result_backend_url == "sentinel://a;sentinel://b"
