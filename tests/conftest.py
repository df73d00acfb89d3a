"""Fixtures of all tests."""

from __future__ import annotations

import os
from pathlib import Path

import pytest


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """No setting of the machine reaches a test."""
    for name in list(os.environ):
        if name.startswith("LABELMILL_"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("LABELMILL_TUNE", "off")  # what is measured beside other tests is luck


@pytest.fixture(scope="session")
def cifar10_cnn() -> Path:
    """The file of the small house model, where whoever asks for its name looks; made where it is not there."""
    from worker.export.prepare import prepare

    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("LABELMILL_MODEL_DIR", raising=False)
        return prepare("cifar10-cnn")
