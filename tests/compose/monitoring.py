"""What the one who operates it looks at: Prometheus with our dashboard's queries and alerts, and Flower's page."""

from __future__ import annotations

import json
import urllib.parse
from pathlib import Path
from typing import Any

from tests.compose.gateway import fetch
from tests.support.browser import browser
from tests.support.servers import eventually

__all__ = ["Prometheus", "flower_answers", "tasks_in_flower"]

#: What Grafana puts in for its variables.
VARIABLES = {"$model": ".*", "$__rate_interval": "1m", "$__interval": "10s"}
#: In queries of what did not happen in this run.
NOT_HERE = 'status="failed"'


class Prometheus:
    """``http://127.0.0.1:<port>``."""

    def __init__(self, port: int) -> None:
        self.base = f"http://127.0.0.1:{port}/api/v1"

    def ask(self, path: str) -> dict[str, Any]:
        """The data of an answer; {} while it is not up."""
        found = fetch(f"{self.base}/{path}")
        return dict(json.loads(found)["data"]) if found else {}

    def targets(self) -> int:
        """How many workers it reads."""
        return sum(target["health"] == "up" for target in self.ask("targets").get("activeTargets", []))

    def query(self, expression: str) -> list[Any]:
        """What an expression says now. Raises where Prometheus does not understand it."""
        return list(self.ask("query?" + urllib.parse.urlencode({"query": expression}))["result"])

    def silent_panels(self, dashboard: Path) -> list[str]:
        """Queries of a dashboard that say nothing, though there was something to say."""
        panels = json.loads(dashboard.read_text())["panels"]
        expressions = [target["expr"] for panel in panels for target in panel["targets"]]
        for name, value in VARIABLES.items():
            expressions = [expression.replace(name, value) for expression in expressions]
        return [e for e in expressions if not self.query(e) and NOT_HERE not in e]

    def alerts(self) -> dict[str, str]:
        """Each alert with its state; one whose expression fails says so."""
        rules = [rule for group in self.ask("rules")["groups"] for rule in group["rules"]]
        return {rule["name"]: rule["state"] if rule["health"] == "ok" else rule["health"] for rule in rules}


def flower_answers(port: int) -> None:
    """Wait for it: it shows what comes from then on."""
    eventually(lambda: fetch(f"http://127.0.0.1:{port}/healthcheck"), 120, what="Flower answers")


def tasks_in_flower(port: int, task: str) -> None:
    """Open Flower's page of tasks in Chromium, and see some of ours that ended well."""
    with browser() as page:
        page.open(f"http://127.0.0.1:{port}/tasks")
        rows = eventually(lambda: [row for row in page.texts("tbody tr") if task in row], what=f"{task} is shown")
        assert any("SUCCESS" in row for row in rows), rows[:3]
        page.keep("flower")
