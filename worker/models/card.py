"""The model card: what a model file knows about itself.

The card travels inside the model file (``_extra_files`` of TorchScript, ``metadata_props`` of ONNX) or in a
side-car JSON beside it, always as one JSON document under the key :data:`CARD_KEY`.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from typing import Any, Literal, get_args

from jobs.errors import ModelCardError

__all__ = ["CARD_KEY", "SCHEMA", "ModelCard", "Preprocessing"]

#: Name of the card inside a model file: an ``_extra_files`` entry or a ``metadata_props`` key.
CARD_KEY = "labelmill.json"
#: Version of the card's JSON; raised when a reader of the old one would misread the new one.
SCHEMA = 1

Activation = Literal["softmax", "sigmoid", "none"]
InputKind = Literal["uint8_nhwc", "float32_nchw"]
OutputKind = Literal["scores", "logits"]
Interpolation = Literal["nearest", "bilinear", "bicubic", "lanczos"]


def _one_of(key: str, value: str, allowed: tuple[str, ...]) -> None:
    if value not in allowed:
        raise ModelCardError(f"model card: {key} is {value!r}; one of {', '.join(allowed)}")


def _is_size(size: Any) -> bool:
    """Whether it is (height, width) in pixels."""
    return isinstance(size, tuple) and len(size) == 2 and all(type(edge) is int and edge > 0 for edge in size)


@dataclass(frozen=True)
class Preprocessing:
    """From a decoded RGB image to the model's input, as in torchvision's ``Resize`` and ``CenterCrop``.

    ``resize`` is the length of the short side in pixels, or ``(height, width)``; ``None`` leaves the size.
    ``crop`` is ``(height, width)`` in pixels of the central crop after that; ``None`` takes all of it, which
    needs a ``resize`` of ``(height, width)`` for a batch to be of one shape.
    ``mean`` and ``std`` are of channels scaled to 0..1, in the order of ``color_order``. A model of input
    ``uint8_nhwc`` normalises inside its graph, and the two are for the record.
    ``scaled_decode`` allows JPEGs to be decoded at 1/2, 1/4 or 1/8 of their size: faster, and not the
    same pixels.
    """

    resize: int | tuple[int, int] | None = 256
    crop: tuple[int, int] | None = (224, 224)
    interpolation: Interpolation = "bilinear"
    mean: tuple[float, float, float] = (0.485, 0.456, 0.406)
    std: tuple[float, float, float] = (0.229, 0.224, 0.225)
    color_order: Literal["RGB", "BGR"] = "RGB"
    scaled_decode: bool = False

    def __post_init__(self) -> None:
        numbers = (*self.mean, *self.std)
        if len(self.mean) != 3 or len(self.std) != 3 or not all(map(math.isfinite, numbers)) or min(self.std) <= 0:
            raise ModelCardError("preprocessing: mean and std are three numbers each, std above 0")
        _one_of("interpolation", self.interpolation, get_args(Interpolation))
        _one_of("color_order", self.color_order, ("RGB", "BGR"))
        edges = [(self.resize, self.resize) if isinstance(self.resize, int) else self.resize, self.crop]
        if not all(edge is None or _is_size(edge) for edge in edges) or not isinstance(self.scaled_decode, bool):
            raise ModelCardError(
                "preprocessing: resize is a whole number of pixels or [height, width], crop is [height, width], each "
                "1 or more; scaled_decode is true or false"
            )

    @classmethod
    def from_dict(cls, raw: dict[str, Any]) -> Preprocessing:
        """From parsed JSON, where tuples are lists; raises TypeError on an unknown key."""
        values: dict[str, Any] = {key: tuple(value) if isinstance(value, list) else value for key, value in raw.items()}
        return cls(**values)

    @property
    def size(self) -> tuple[int, int]:
        """``(height, width)`` in pixels of what the model gets."""
        if self.crop is not None:
            return self.crop
        if isinstance(self.resize, tuple):
            return self.resize
        raise ModelCardError("preprocessing needs a crop, or a resize of (height, width)")


@dataclass(frozen=True)
class ModelCard:
    """Labels, preprocessing, name and proof of one model.

    ``input``: ``uint8_nhwc`` is ``uint8[N, H, W, 3]`` (ours: normalisation in the graph); ``float32_nchw`` is
    ``float32[N, 3, H, W]``, normalised by the worker (plain files).
    ``output``: ``scores`` are final; ``logits`` get ``activation`` applied by the worker.
    ``top_k``: how many labels a single call gets that does not say; jobs always say.
    ``golden``: a JSON-ready golden sample, see :mod:`worker.models.golden`; ``None`` for plain files.
    """

    name: str
    labels: tuple[str, ...]
    preprocessing: Preprocessing = Preprocessing()
    version: str = "1"
    activation: Activation = "softmax"
    input: InputKind = "uint8_nhwc"
    output: OutputKind = "scores"
    source: str = ""
    top_k: int = 5
    golden: dict[str, Any] | None = None

    def __post_init__(self) -> None:
        _one_of("activation", self.activation, get_args(Activation))
        _one_of("input", self.input, get_args(InputKind))
        _one_of("output", self.output, get_args(OutputKind))
        if not self.labels or not self.name or type(self.top_k) is not int or self.top_k < 1:
            raise ModelCardError("a model card needs a name, at least one label and a top_k of 1 or more")
        if not all(isinstance(text, str) for text in (self.name, self.version, self.source)):
            raise ModelCardError("a model card's name, version and source are text")

    def with_name(self, name: str) -> ModelCard:
        """The same card under another name."""
        return replace(self, name=name)

    def to_json(self) -> str:
        """One JSON document, keys sorted, so that equal cards are equal bytes."""
        return json.dumps({"schema": SCHEMA, **asdict(self)}, sort_keys=True, ensure_ascii=False)

    @classmethod
    def from_json(cls, text: str | bytes) -> ModelCard:
        """Read a card; raises :class:`~jobs.errors.ModelCardError` that names what is wrong with it."""
        try:
            raw = json.loads(text)
            schema = raw.pop("schema")
            if schema != SCHEMA:
                raise ModelCardError(f"model card of schema {schema!r}; this version reads {SCHEMA}")
            given = raw.pop("preprocessing")
            _refuse_unknown("model card", raw, cls)
            _refuse_unknown("preprocessing", given, Preprocessing)
            prep = Preprocessing.from_dict(given)
            labels = tuple(str(label) for label in raw.pop("labels"))
            return cls(labels=labels, preprocessing=prep, **raw)
        except (ValueError, KeyError, TypeError, AttributeError) as exc:
            raise ModelCardError(f"model card cannot be read: {type(exc).__name__}: {exc}") from exc


def _refuse_unknown(what: str, given: Mapping[str, Any], wanted: type[ModelCard | Preprocessing]) -> None:
    known = [field.name for field in fields(wanted)]
    if unknown := sorted(set(given) - set(known)):
        raise ModelCardError(f"{what}: no key {unknown[0][:80]!a}; known: {', '.join(known)}")
