"""Fixtures of all tests."""

from __future__ import annotations

import os

import pytest


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """No setting of the machine reaches a test."""
    for name in list(os.environ):
        if name.startswith("LABELMILL_"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("LABELMILL_TUNE", "off")  # what is measured beside other tests is luck
