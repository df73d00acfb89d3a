"""Files that operators use as they are: settings, dashboard, alerts and documentation say the same."""

from __future__ import annotations

import json
import re
from dataclasses import fields
from pathlib import Path

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
