"""Packages that do not fit together."""

from __future__ import annotations

import re
from collections.abc import Iterator

from producer.doctor.patient import Finding, Patient

__all__ = ["celery_too_old", "pixels_unlimited", "torchvision_mismatch"]

#: The first versions with the reconnect fixes that recovery rests on.
OLDEST = {"celery": (5, 7), "kombu": (5, 7)}
#: Pixels past which Pillow refuses an image by itself: a bomb of this size takes half a gigabyte.
PILLOW_REFUSES = 2 * 89_478_485


def celery_too_old(patient: Patient) -> Iterator[Finding]:
    """Before 5.7 a worker may stay deaf for ever after Redis was away."""
    for name, oldest in OLDEST.items():
        found = patient.package(name)
        if found is not None and _numbers(found.version) < oldest:
            wanted = ".".join(map(str, oldest))
            yield Finding(
                "celery_too_old",
                "error",
                f"{name} {found.version} is installed: before {wanted} a worker may not come back when Redis was away.",
                f"pip install '{name}>={wanted}'",
            )


def torchvision_mismatch(patient: Patient) -> Iterator[Finding]:
    """torchvision is built for one torch; with another one its import dies."""
    torch, vision = patient.package("torch"), patient.package("torchvision")
    if torch is None or vision is None:
        return
    wanted = next((m[1] for need in vision.requires or [] if (m := re.match(r"torch\s*\(?==\s*([\w.]+)", need))), "")
    have, local = torch.version.partition("+")[::2]
    if wanted and wanted.partition("+")[0] != have:
        yield Finding(
            "torchvision_mismatch",
            "error",
            f"torchvision {vision.version} needs torch {wanted}, and torch {torch.version} is installed.",
            f"pip install torchvision=={vision.version.partition('+')[0]} torch=={wanted}",
        )
    elif local == "cpu" and not vision.version.endswith("+cpu"):
        yield Finding(
            "torchvision_mismatch",
            "warning",
            f"torch {torch.version} is built for the CPU and torchvision {vision.version} for CUDA: code of "
            "yours that imports it dies with 'operator torchvision::nms does not exist'.",
            "Install both from the same index where modules of yours need it; Labelmill itself does not mind.",
        )


def pixels_unlimited(patient: Patient) -> Iterator[Finding]:
    """A small file can be an enormous image."""
    limit: int | None = patient.settings.max_pixels
    try:
        from PIL import Image
    except ImportError:
        pass  # a producer without Pillow decodes nothing
    else:
        limit = None if Image.MAX_IMAGE_PIXELS is None else limit
    if limit is None or limit > PILLOW_REFUSES:
        shown = "off" if limit is None else f"{limit:,} (LABELMILL_MAX_PIXELS)"
        yield Finding(
            "pixels_unlimited",
            "warning",
            f"The limit on an image's pixels is {shown}: one small file can take gigabytes of memory.",
            "Leave Pillow's Image.MAX_IMAGE_PIXELS as it is, and set LABELMILL_MAX_PIXELS to what your images need.",
        )


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", version.partition("+")[0])[:2])
