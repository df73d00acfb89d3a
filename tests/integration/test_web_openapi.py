"""The description of the interface is true: every route is in it, and schemathesis finds nothing else."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from producer.web import WebSettings, create_app
from producer.web.queries import PARAMETERS
from tests.support.gateway import gateway
from tests.support.servers import ROOT

DESCRIPTION = json.loads((ROOT / "producer" / "web" / "openapi.json").read_text())
#: Not of the interface: the page, and the description itself.
PAGE = {"/", "/static/{name}", "/openapi.json"}


def described() -> dict[str, dict[str, object]]:
    """Each call as ``GET /path`` with what the description says of it."""
    return {
        f"{method.upper()} {path}": operation
        for path, operations in DESCRIPTION["paths"].items()
        for method, operation in operations.items()
        if method != "parameters"
    }


def test_every_route_is_described_and_every_description_is_a_route() -> None:
    app = create_app(WebSettings())
    routes = {
        f"{method} {path}"
        for rule in app.url_map.iter_rules()
        for method in rule.methods or ()
        if method not in ("HEAD", "OPTIONS") and (path := re.sub(r"<(\w+)>", r"{\1}", rule.rule)) not in PAGE
    }
    assert routes == set(described())


def test_the_parameters_that_are_known_are_those_described() -> None:
    for call, operation in described().items():
        parameters = operation.get("parameters", [])
        assert isinstance(parameters, list)
        names = {parameter["name"] for parameter in parameters if parameter["in"] == "query"}
        assert PARAMETERS.get(re.sub(r"{(\w+)}", r"<\1>", call), set()) == names, call


def test_schemathesis_finds_the_description_true(tmp_path: Path) -> None:
    with gateway() as web:
        folder = ROOT / "tests" / "support"
        command = [str(Path(sys.executable).with_name("schemathesis"))]
        command += ["--config-file", str(folder / "schemathesis.toml")]
        command += ["run", f"{web.url}/openapi.json", "--seed", "1", "--no-shrink", "--max-time", "25"]
        # stateful: what one call answers, the next one uses, so that jobs and tasks that are there are asked for too
        command += ["--phases", "examples,coverage,fuzzing,stateful", "--max-examples", "10"]
        command += ["--request-timeout", "60", "--continue-on-failure"]
        env = os.environ | {"SCHEMATHESIS_HOOKS": str(folder / "schemathesis_hooks.py")}
        done = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True, timeout=200, check=False)
    if done.returncode:
        pytest.fail(done.stdout[-6000:] + done.stderr[-2000:])
    assert re.search(r"(\d+) generated, \1 passed", done.stdout), done.stdout[-2000:]
