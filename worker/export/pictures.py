"""A folder of pictures as arrays: to calibrate with, and to measure accuracy on."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from jobs.errors import ItemError, SourceError
from worker.decode import decode
from worker.models.card import ModelCard
from worker.models.runtime import Images

__all__ = ["Pictures", "picture_files", "read_pictures"]

#: Endings of files that are looked at; the contents decide.
SUFFIXES = frozenset((".bmp", ".gif", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp"))


@dataclass(frozen=True)
class Pictures:
    """``images`` uint8[N, H, W, 3]; ``classes`` int64[N] by folder name, -1 where that is no label of the model.

    ``skipped`` counts the files that are no pictures.
    """

    images: Images
    classes: NDArray[np.int64]
    skipped: int = 0

    def batches(self, size: int = 32) -> Iterator[Images]:
        """The images in blocks."""
        for start in range(0, len(self.images), size):
            yield self.images[start : start + size]


def picture_files(folder: Path) -> list[Path]:
    """Files that look like pictures, in the order of their names; raises :class:`~jobs.errors.SourceError` on none."""
    if not folder.is_dir():
        raise SourceError(f"no folder {folder}")
    files = sorted(path for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES)
    if not files:
        raise SourceError(f"no pictures in {folder}")
    return files


def read_pictures(folder: Path, card: ModelCard, *, limit: int | None = None) -> Pictures:
    """Decode as the card says; with ``limit``, that many, spread evenly over the folder.

    A picture's class is the nearest folder above it that is named like a label or numbered like one.
    """
    files = picture_files(folder)
    if limit is not None and limit < len(files):
        files = [files[index] for index in np.linspace(0, len(files) - 1, limit).astype(int)]
    indices = {label: index for index, label in enumerate(card.labels)}
    images, classes, skipped = [], [], 0
    for path in files:
        try:
            images.append(decode(path.read_bytes(), card.preprocessing))
        except ItemError:
            skipped += 1
            continue
        classes.append(_class_of(path.relative_to(folder), indices))
    if not images:
        raise SourceError(f"none of the {len(files)} files in {folder} can be decoded")
    return Pictures(np.stack(images), np.asarray(classes, np.int64), skipped)


def _class_of(path: Path, indices: dict[str, int]) -> int:
    for name in reversed(path.parent.parts):
        if name in indices:
            return indices[name]
        if name.isdigit() and int(name) < len(indices):
            return int(name)
    return -1
