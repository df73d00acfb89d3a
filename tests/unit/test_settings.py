"""Settings come from the environment, and a bad one is named."""

from __future__ import annotations

from pathlib import Path

import pytest

from jobs.errors import UsageError
from jobs.settings import Settings, mask_url


def test_an_empty_environment_gives_the_defaults() -> None:
    assert Settings.from_env({}) == Settings()


def test_each_kind_of_value_is_read() -> None:
    settings = Settings.from_env(
        {
            "LABELMILL_FILE_ROOTS": "/data:/more",
            "LABELMILL_URL_HOSTS": "a.example, b.example",
            "LABELMILL_MAX_BYTES": "16M",
            "LABELMILL_LEASE_S": "2.5",
            "LABELMILL_MODEL": "one,two",
        }
    )
    assert settings.file_roots == (Path("/data"), Path("/more"))
    assert settings.url_hosts == ("a.example", "b.example")
    assert settings.max_bytes == 16 * 2**20
    assert settings.lease_s == 2.5
    assert settings.models == ("one", "two")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("LABELMILL_BROKER_URL", "nonsense://h"),
        ("LABELMILL_MAX_BYTES", "many"),
        ("LABELMILL_MAX_PIXELS", "0"),
        ("LABELMILL_LEASE_S", "-1"),
        ("LABELMILL_LEASE_S", "nan"),
        ("LABELMILL_BACKLOG_LIMIT", "1.5"),
        ("LABELMILL_DEVICE", "abacus"),
        ("LABELMILL_WEBHOOK_SECRET", "whsec_***"),
    ],
)
def test_a_bad_value_stops_with_the_variables_name(name: str, value: str) -> None:
    with pytest.raises(UsageError, match=name):
        Settings.from_env({name: value})


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("LABELMILL_THREADS", "abc", "must be a whole number"),
        ("LABELMILL_BACKLOG_LIMIT", "1.5", "must be a whole number"),
        ("LABELMILL_LEASE_S", "soon", "must be a number"),
    ],
)
def test_what_is_no_number_is_said_in_words(name: str, value: str, said: str) -> None:
    with pytest.raises(UsageError, match=f"{name}='{value}': {said}$"):
        Settings.from_env({name: value})


@pytest.mark.parametrize(
    ("broker", "ledger", "redis", "backend"),
    [
        ("redis://h:1/2", "", "redis://h:1/2", "redis://h:1/2"),
        ("redis+socket:///r.sock?virtual_host=3", "", "unix:///r.sock?db=3", "redis+socket:///r.sock?virtual_host=3"),
        ("amqp://h//", "redis://l/0", "redis://l/0", "redis://l/0"),
    ],
)
def test_the_ledger_and_the_results_share_a_redis(broker: str, ledger: str, redis: str, backend: str) -> None:
    settings = Settings(broker_url=broker, ledger_url=ledger)
    assert settings.redis_url == redis
    assert settings.result_backend_url == backend


def test_a_broker_that_is_no_redis_needs_a_ledger_beside_it() -> None:
    with pytest.raises(UsageError, match="LABELMILL_LEDGER_URL"):
        _ = Settings(broker_url="amqp://h//").redis_url


def test_no_password_is_ever_shown() -> None:
    settings = Settings(broker_url="redis://user:hunter2@h:1/0", ledger_url="redis://:hunter2@h:1/0")
    assert "hunter2" not in repr(settings)
    assert mask_url("redis://user:hunter2@h/0 and redis://:hunter2@h") == "redis://user:***@h/0 and redis://:***@h"
    assert mask_url("redis://:hunt@er2@h/0?x=1") == "redis://:***@h/0?x=1"
    assert mask_url("sentinel://:hunter2@a:1;sentinel://:hunter2@b:1/0") == "sentinel://:***@a:1;sentinel://:***@b:1/0"
    assert mask_url("redis://h/0?password=hunter2&db=1") == "redis://h/0?password=***&db=1"
    with pytest.raises(UsageError) as caught:
        Settings.from_env({"LABELMILL_LEASE_S": "redis://:hunter2@h"})
    assert "hunter2" not in caught.value.message


@pytest.mark.parametrize(("model", "name"), [("plain", "plain"), ("/m/file.onnx", "file"), ("a,b", "a")])
def test_the_default_models_name_is_that_of_the_first(model: str, name: str) -> None:
    assert Settings(model=model).model_name == name
