"""Read a model file's card without importing torch, onnx or onnxruntime."""

from __future__ import annotations

import json
import os
import zipfile
import zlib
from pathlib import Path
from typing import Any, Literal

from jobs.errors import ModelCardError, ModelCorruptError, ModelUnsupportedError
from worker.models.card import CARD_KEY, SCHEMA, ModelCard
from worker.models.labels import parse_labels, read_labels
from worker.models.onnx_header import read_onnx_header

__all__ = ["CARD_VARIABLE", "SUFFIX", "ZIP_ERRORS", "Format", "file_format", "is_plain", "read_card", "sidecar_path"]

Format = Literal["onnx", "torchscript", "torch_export"]
#: Ending of the files of each format; the contents decide, not the ending.
SUFFIX: dict[Format, str] = {"onnx": ".onnx", "torchscript": ".pt", "torch_export": ".pt2"}

#: The environment variable with the card (JSON) of files that carry none and have no side-car.
CARD_VARIABLE = "LABELMILL_MODEL_CARD"
#: Keys that a side-car JSON may leave out, and what a plain file is taken to be.
PLAIN = {"input": "float32_nchw", "output": "logits", "version": "1"}
_ZIP_MAGIC = b"PK\x03\x04"
#: What zipfile raises on damaged files: a name that is no text, a version or a method from nowhere, a flag that asks
#: for a password.
ZIP_ERRORS = (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, OSError, RuntimeError, ValueError)


def read_card(path: Path) -> ModelCard:
    """The card inside the file; of a plain file the side-car ``<file>.json``, else ``$LABELMILL_MODEL_CARD``.

    Raises :class:`~jobs.errors.ModelCardError` where there is none, or two, or it cannot be read;
    :class:`~jobs.errors.ModelCorruptError` where the file is no whole model file.
    """
    embedded = _embedded(path, file_format(path))
    sidecar = sidecar_path(path)
    if embedded is None and not sidecar.exists():
        if given := os.environ.get(CARD_VARIABLE):
            return ModelCard.from_json(given).with_name(path.stem)
        raise ModelCardError(
            f"{path} carries no model card and {sidecar.name} is not beside it; write one with its labels "
            "and preprocessing, give --labels, or export the model with labelmill-worker export"
        )
    if embedded is not None and sidecar.exists():
        raise ModelCardError(f"{path} carries a model card and {sidecar.name} lies beside it; remove the latter")
    return ModelCard.from_json(embedded) if embedded is not None else _from_sidecar(path, sidecar)


def is_plain(path: Path) -> bool:
    """Whether a model file has no card of its own: neither inside nor beside it. Raises as :func:`read_card`."""
    return _embedded(path, file_format(path)) is None and not sidecar_path(path).exists()


def file_format(path: Path) -> Format:
    """What the file is, by its contents.

    Raises :class:`~jobs.errors.ModelCorruptError`, or :class:`~jobs.errors.ModelUnsupportedError` on a file
    of weights alone.
    """
    try:
        with path.open("rb") as file:
            magic = file.read(len(_ZIP_MAGIC))
    except OSError as exc:
        raise ModelCorruptError(f"{path}: cannot be read: {exc.strerror}") from exc
    if magic != _ZIP_MAGIC:
        if path.suffix in (".pt", ".pth", ".pt2"):
            raise ModelCorruptError(f"{path}: no TorchScript file; export it or copy it again")
        return "onnx"
    return _zip_format(path)


def sidecar_path(path: Path) -> Path:
    """``model.onnx`` -> ``model.onnx.json``."""
    return path.with_name(path.name + ".json")


def _zip_format(path: Path) -> Format:
    parts = {name.split("/", 2)[1] for name in _names(path) if "/" in name}
    if "code" in parts:
        return "torchscript"
    if "archive_format" in parts:
        return "torch_export"
    raise ModelUnsupportedError(
        f"{path} holds weights and no model; export it: labelmill-worker export --arch NAME "
        f"--weights {path.name} --format onnx --output FILE"
    )


def _names(path: Path) -> list[str]:
    try:
        with zipfile.ZipFile(path) as archive:
            # Of a .pt2 cut short, zipfile takes the directory of a zip inside it: that one begins further on.
            if archive.infolist() and min(info.header_offset for info in archive.infolist()) > 0:
                raise zipfile.BadZipFile("its directory is missing")
            return archive.namelist()
    except ZIP_ERRORS as exc:
        raise ModelCorruptError(f"{path}: cut short or damaged ({exc}); export it or copy it again") from exc


def _embedded(path: Path, kind: Format) -> bytes | str | None:
    if kind == "onnx":
        return read_onnx_header(path).metadata.get(CARD_KEY)
    entry = next((name for name in _names(path) if name.endswith(f"extra/{CARD_KEY}")), None)
    if entry is None:
        return None
    try:
        with zipfile.ZipFile(path) as archive:
            return archive.read(entry)
    except ZIP_ERRORS as exc:
        raise ModelCorruptError(f"{path}: its card is damaged ({exc}); export it or copy it again") from exc


def _from_sidecar(path: Path, sidecar: Path) -> ModelCard:
    """A side-car needs ``labels`` only: a list, a mapping, or the name of a labels file beside it."""
    try:
        raw: Any = json.loads(sidecar.read_text(encoding="utf-8"))
        labels = raw.pop("labels")
        if isinstance(labels, str):
            labels = list(read_labels(sidecar.parent / labels))
        document = {"schema": SCHEMA, "name": path.stem, "preprocessing": {}, **PLAIN, **raw}
        return ModelCard.from_json(json.dumps({**document, "labels": list(parse_labels(labels))}))
    except ModelCardError as exc:
        raise ModelCardError(f"{sidecar}: {exc.message}") from exc
    except json.JSONDecodeError as exc:
        raise ModelCardError(f"{sidecar} is no JSON: {exc}") from exc
    except (OSError, ValueError, KeyError, AttributeError, TypeError) as exc:
        raise ModelCardError(f"{sidecar} cannot be read: {type(exc).__name__}: {exc}") from exc
