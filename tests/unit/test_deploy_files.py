"""Files that operators use as they are: settings, dashboard, alerts and documentation say the same."""

from __future__ import annotations

import json
import re
from dataclasses import fields
from pathlib import Path

import yaml

from jobs.settings import Settings
from producer.web.settings import WebSettings

ROOT = Path(__file__).resolve().parents[2]
SUFFIXES = re.compile(r"_(bucket|sum|count)$")


def documented() -> set[str]:
    """Metrics of ``docs/operations.md``."""
    text = (ROOT / "docs" / "operations.md").read_text()
    return set(re.findall(r"^\| `(labelmill_\w+)` \|", text, re.MULTILINE))


def metrics_in(text: str) -> set[str]:
    """Names of ours in a text, as the documentation lists them."""
    return {SUFFIXES.sub("", name) for name in re.findall(r"\blabelmill_\w+", text)}


def test_every_setting_is_in_the_example_of_the_environment() -> None:
    text = (ROOT / ".env.example").read_text()
    listed = set(re.findall(r"^# (LABELMILL_\w+)=", text, re.MULTILINE))
    assert {f"LABELMILL_{field.name.upper()}" for field in fields(WebSettings)} <= listed


def test_the_dashboard_shows_every_metric_and_no_other() -> None:
    dashboard = json.loads((ROOT / "deploy" / "grafana" / "dashboards" / "labelmill.json").read_text())
    shown = metrics_in(json.dumps([panel["targets"] for panel in dashboard["panels"]]))
    assert shown == documented()


def test_alerts_are_of_documented_metrics_and_explained() -> None:
    text = (ROOT / "deploy" / "prometheus" / "alerts.yml").read_text()
    assert metrics_in(text) <= documented()
    explained = (ROOT / "docs" / "operations.md").read_text()
    for alert in re.findall(r"- alert: (\w+)", text):
        assert f"| `{alert}` |" in explained, alert


def test_every_alert_is_provoked_once() -> None:
    """``make compose-test`` runs these with promtool."""
    folder = ROOT / "deploy" / "prometheus"
    rules = yaml.safe_load((folder / "alerts.yml").read_text())["groups"][0]["rules"]
    tried = yaml.safe_load((folder / "alerts_test.yml").read_text())["tests"]
    provoked = {look["alertname"] for test in tried for look in test["alert_rule_test"] if look["exp_alerts"]}
    assert provoked == {rule["alert"] for rule in rules}


def users_of_stages(dockerfile: str) -> dict[str, str]:
    """The user that each stage of a Dockerfile ends with, its parents' where it names none."""
    users: dict[str, str] = {}
    name = ""
    for line in dockerfile.splitlines():
        if match := re.fullmatch(r"FROM (\S+) AS (\S+)", line):
            name = match[2]
            users[name] = users.get(match[1], "root")
        elif line.startswith("USER "):
            users[name] = line.removeprefix("USER ")
    return users


def test_no_container_runs_as_root() -> None:
    users = users_of_stages((ROOT / "Dockerfile").read_text())
    shipped = {"producer", "gateway", "worker-onnx", "worker-torch", "flower"}
    assert {users[stage] for stage in shipped} == {"10001:10001"}
    named = re.findall(r"^ +user: (.*)$", (ROOT / "docker-compose.yml").read_text(), re.MULTILINE)
    assert not [user for user in named if re.search(r"\broot\b|\b0:", user)]


#: What belongs to a container, and not to whoever sets it up.
OF_CONTAINERS = {"model_dir", "file_roots", "state_dir"}


def environment(service: str) -> dict[str, str | None]:
    """What a service of docker-compose.yml gives its containers; None: as .env has it."""
    found = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"][service]["environment"]
    return dict(found)


def test_every_setting_reaches_the_containers_that_it_is_for() -> None:
    ours = {field.name for field in fields(Settings)} - OF_CONTAINERS
    assert {f"LABELMILL_{name.upper()}" for name in ours} == set(environment("worker"))
    theirs = {field.name for field in fields(WebSettings)} - {field.name for field in fields(Settings)}
    assert {f"LABELMILL_{name.upper()}" for name in theirs} <= set(environment("gateway"))


def test_replicas_do_not_measure_each_other() -> None:
    assert environment("worker")["LABELMILL_TUNE"] == "${LABELMILL_TUNE:-off}"
    pod = yaml.safe_load((ROOT / "deploy" / "kubernetes" / "worker.yaml").read_text())["spec"]["template"]["spec"]
    assert {"name": "LABELMILL_TUNE", "value": "off"} in pod["containers"][0]["env"]


def test_what_the_images_install_is_pinned() -> None:
    pinned = {line.partition("==")[0].lower() for line in (ROOT / "constraints.txt").read_text().splitlines()}
    assert {"celery", "redis", "onnxruntime", "torch", "flower", "tornado", "prometheus_client"} <= pinned


def test_the_scaler_asks_for_metrics_that_there_are() -> None:
    text = (ROOT / "deploy" / "kubernetes" / "autoscaling.yaml").read_text()
    (trigger,) = yaml.safe_load(text)["spec"]["triggers"]
    assert metrics_in(trigger["metadata"]["query"]) == {"labelmill_backlog_seconds", "labelmill_fleet_workers"}
    assert metrics_in(trigger["metadata"]["query"]) <= documented()
    assert all(isinstance(value, str) for value in trigger["metadata"].values()), "KEDA takes texts only"


def test_a_setting_that_is_not_made_is_no_empty_one() -> None:
    """Flower with an empty FLOWER_BASIC_AUTH lets nobody in."""
    for service in ("worker", "gateway", "flower"):
        assert not [value for value in environment(service).values() if value and value.endswith(":-}")], service
