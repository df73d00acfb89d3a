"""The manifests of ``deploy/kubernetes`` against the schemas of Kubernetes, strictly: no field that is not known."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

FOLDER = Path(__file__).resolve().parents[2] / "deploy" / "kubernetes"
VERSION = "1.31"


def manifests() -> list[tuple[str, dict[str, Any]]]:
    """Every object of every file."""
    return [
        (f"{path.stem}-{manifest['kind']}", manifest)
        for path in sorted(FOLDER.glob("*.yaml"))
        for manifest in yaml.safe_load_all(path.read_text())
    ]


@pytest.mark.parametrize(
    "manifest", [pytest.param(m, id=name) for name, m in manifests() if m["kind"] != "ScaledObject"]
)
def test_a_manifest_is_valid(manifest: dict[str, Any]) -> None:
    kubernetes_validate.validate(manifest, VERSION, strict=True)


def test_a_field_that_is_not_known_would_be_found() -> None:
    manifest = dict(manifests())["worker-Deployment"]
    container = manifest["spec"]["template"]["spec"]["containers"][0]
    container["readynessProbe"] = container.pop("readinessProbe")
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(manifest, VERSION, strict=True)


def test_the_scaler_scales_the_workers_that_are_there() -> None:
    found = dict(manifests())
    target = found["autoscaling-ScaledObject"]["spec"]["scaleTargetRef"]["name"]
    assert target == found["worker-Deployment"]["metadata"]["name"]


@pytest.mark.parametrize("name", ["worker-Deployment", "gateway-Deployment"])
def test_nothing_runs_as_root_or_writes_into_its_image(name: str) -> None:
    pod = dict(manifests())[name]["spec"]["template"]["spec"]
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert all(container["securityContext"]["readOnlyRootFilesystem"] for container in pod["containers"])


def test_the_drain_ends_before_the_grace_period_does() -> None:
    pod = dict(manifests())["worker-Deployment"]["spec"]["template"]["spec"]
    env = {entry["name"]: entry["value"] for entry in pod["containers"][0]["env"]}
    assert float(env["LABELMILL_DRAIN_TIMEOUT_S"]) < pod["terminationGracePeriodSeconds"]
