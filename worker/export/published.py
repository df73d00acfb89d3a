"""torchvision's published weights: from torch's cache, else from the network, checked by the hash in their name."""

from __future__ import annotations

import hashlib
import re
import urllib.request
from pathlib import Path

import torch

from jobs.errors import WeightsError
from worker.export.files import written_whole

__all__ = ["cached_path", "published_weights"]

#: Longest wait for the server to say something (seconds).
TIMEOUT_S = 20.0
BLOCK_BYTES = 2**20


def published_weights(name: str, url: str) -> Path:
    """The weights' file in torch's cache, downloaded where it is missing.

    Raises :class:`~jobs.errors.WeightsError` that says what to download and where to put it.
    """
    path = cached_path(url)
    if path.is_file():
        return path
    try:
        with written_whole(path) as partial:
            _download(url, partial)
    except OSError as exc:
        raise WeightsError(
            f"the published weights of {name} cannot be downloaded ({exc}); download {url} elsewhere and give it "
            f"with --weights FILE, or put it at {path}"
        ) from exc
    return path


def cached_path(url: str) -> Path:
    """Where torch.hub would keep the file."""
    return Path(torch.hub.get_dir()) / "checkpoints" / url.rpartition("/")[2]


def _download(url: str, target: Path) -> None:
    sha256 = hashlib.sha256()
    with urllib.request.urlopen(url, timeout=TIMEOUT_S) as answer, target.open("wb") as file:
        while block := answer.read(BLOCK_BYTES):
            sha256.update(block)
            file.write(block)
    promised = re.search(r"-([0-9a-f]{8,})\.", url)
    if promised and not sha256.hexdigest().startswith(promised[1]):
        raise OSError(f"its sha256 begins with {sha256.hexdigest()[:8]}, not with {promised[1]}")
