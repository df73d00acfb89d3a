"""Find a model file by name, read its card without loading it, and load it with the runtime that fits."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

from jobs.errors import ModelMissingError, ModelUnsupportedError
from worker.models.card import ModelCard
from worker.models.noop import NOOP, is_noop, load_noop
from worker.models.reader import SUFFIX, file_format, read_card
from worker.models.runtime import Runtime

__all__ = [
    "HOUSE_MODELS",
    "MODEL_DIR_VARIABLE",
    "cache_dir",
    "default_model_dir",
    "digest",
    "identify",
    "load",
    "read_card",
    "resolve",
]

#: Models that ``labelmill-worker prepare`` makes from what is installed, without a download.
HOUSE_MODELS = ("cifar10-cnn", "efficientnet-lite0")
#: The environment variable that names the folder of prepared models.
MODEL_DIR_VARIABLE = "LABELMILL_MODEL_DIR"
#: What a name may be completed with, in the order in which the files are looked for.
SUFFIXES = tuple(SUFFIX.values())
#: Bytes read at a time when a file's digest is taken.
BLOCK_BYTES = 2**20


def default_model_dir() -> Path:
    """``$LABELMILL_MODEL_DIR``, else ``models/v1`` in our cache folder."""
    if named := os.environ.get(MODEL_DIR_VARIABLE):
        return Path(named)
    return cache_dir() / "models" / "v1"


def cache_dir() -> Path:
    """``labelmill`` in ``$XDG_CACHE_HOME`` or ``~/.cache``."""
    cache = os.environ.get("XDG_CACHE_HOME")
    return (Path(cache) if cache else Path.home() / ".cache") / "labelmill"


def resolve(name_or_file: str | Path, *, model_dir: Path | None = None) -> Path:
    """The model file: a path that exists, or the name of a file in the model folder.

    Raises :class:`~jobs.errors.ModelMissingError` that lists what is there and says what to do.
    """
    path = Path(name_or_file)
    if path.is_file():
        return path
    folder = model_dir or default_model_dir()
    for candidate in (folder / f"{name_or_file}{suffix}" for suffix in ("", *SUFFIXES)):
        if path.name == str(name_or_file) and candidate.is_file():
            return candidate
    raise ModelMissingError(_missing(str(name_or_file), folder))


def digest(path: Path) -> str:
    """``sha256:<hex>`` of the file's bytes: the model's identity."""
    sha256 = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(BLOCK_BYTES):
            sha256.update(block)
    return "sha256:" + sha256.hexdigest()


def identify(name_or_file: str | Path, *, model_dir: Path | None = None) -> tuple[ModelCard, str]:
    """A model's card and digest, read without loading it. Raises :class:`~jobs.errors.ModelFileError`."""
    if is_noop(str(name_or_file)):
        noop = load_noop(str(name_or_file))
        return noop.card, noop.digest
    path = resolve(name_or_file, model_dir=model_dir)
    return read_card(path), digest(path)


def load(
    name_or_file: str | Path,
    *,
    threads: int = 1,
    device: str = "cpu",
    card: ModelCard | None = None,
    model_dir: Path | None = None,
) -> Runtime:
    """Load a model with its runtime, and import no other.

    ``threads`` are those of one ``predict``; ``device`` is ``cpu``, ``cuda``, or ``auto``: cuda where the model's
    runtime can use it; ``card`` stands in for the card of a plain file. CUDA is first touched here: not before a
    process forks. The golden sample is not compared here: see :func:`worker.models.golden.verify`.
    Raises :class:`~jobs.errors.ModelFileError`.
    """
    if is_noop(str(name_or_file)):
        return load_noop(str(name_or_file))
    path = resolve(name_or_file, model_dir=model_dir)
    card = card or read_card(path)
    kind = file_format(path)
    try:
        if kind == "onnx":
            from worker.models.onnx import load_onnx

            return load_onnx(path, card, digest(path), threads=threads, device=device)
        if kind == "torch_export":
            from worker.models.torch_export import load_torch_export

            return load_torch_export(path, card, digest(path), threads=threads, device=device)
        from worker.models.torchscript import load_torchscript

        return load_torchscript(path, card, digest(path), threads=threads, device=device)
    except ImportError as exc:
        extra = "onnx" if kind == "onnx" else "torch"
        raise ModelUnsupportedError(f"{path} needs {exc.name}; install labelmill[{extra}]") from exc


def _missing(name: str, folder: Path) -> str:
    if "/" in name or name.endswith(SUFFIXES):
        return f"no such model file: {name}"
    found = sorted({path.stem for path in folder.glob("*") if path.suffix in SUFFIXES}) if folder.is_dir() else []
    there = ", ".join([*found, NOOP])
    make = f"labelmill-worker prepare {name}" if name in HOUSE_MODELS else "labelmill-worker export --help"
    return f"no model {name!r} in {folder} (there: {there}); make it: {make}"
