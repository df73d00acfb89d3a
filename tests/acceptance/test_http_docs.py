"""Every command of docs/http.md, run as it stands on a real gateway with the default model."""

from __future__ import annotations

import dataclasses
import os
import re
import subprocess
from pathlib import Path

from producer.web import WebSettings, create_app
from tests.support.gateway import gateway
from tests.support.servers import ROOT

PAGE = (ROOT / "docs" / "http.md").read_text()
BLOCKS = re.findall(r"^```sh\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)


def test_every_command_of_the_page_works(tmp_path: Path) -> None:
    commands = "\n".join(block for block in BLOCKS if not block.startswith("URL="))
    assert commands.count("curl ") >= 25
    # --fail-with-body: a status of 400 or more ends the script; each command is printed before its answer
    script = 'set -euo pipefail\ncurl() { command curl --fail-with-body "$@"; }\nset -x\n' + commands
    with gateway(model="efficientnet-lite0") as web:
        env = {**os.environ, "URL": web.url, "TMP": str(tmp_path)}
        done = subprocess.run(
            ["bash", "-c", script], cwd=ROOT, env=env, capture_output=True, text=True, timeout=200, check=False
        )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    assert '"object_name":"espresso"' in done.stdout
    assert '"code":"corrupt_image"' in done.stdout
    assert "event: ended" in done.stdout


def test_every_call_has_a_command() -> None:
    commands = "\n".join(BLOCKS)
    rules = {rule.rule for rule in create_app(WebSettings()).url_map.iter_rules()}
    for rule in rules - {"/", "/static/<name>", "/openapi.json"}:
        pattern = re.escape("$URL") + re.sub(r"<\w+>", r"[^/\\s?\"]+", rule) + r"(?=[\"\s?]|$)"
        assert re.search(pattern, commands), rule


def test_the_table_names_defaults_that_are_true() -> None:
    known = {f"LABELMILL_{field.name.upper()}": field for field in dataclasses.fields(WebSettings)}
    rows = re.findall(r"^\| `(LABELMILL_\w+)` \| (\S+)", PAGE, re.MULTILINE)
    assert len(rows) >= 12
    for name, default in rows:
        assert known[name].metadata["parse"](default) == known[name].default, name
