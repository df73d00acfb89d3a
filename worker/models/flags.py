"""Command-line flags that describe a plain model file, in place of a side-car JSON."""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

from jobs.errors import ModelCardError, UsageError
from jobs.parser import positive
from jobs.settings import DEVICES
from worker.models.card import ModelCard, Preprocessing
from worker.models.labels import read_labels
from worker.models.loader import resolve
from worker.models.noop import is_noop
from worker.models.reader import CARD_VARIABLE, is_plain

__all__ = [
    "PRESETS",
    "add_card_flags",
    "add_device_flag",
    "add_preprocessing_flags",
    "card_from_flags",
    "hand_on",
    "parse_preprocessing",
    "seconds",
]

#: The name of a card before a file takes it: each file gets its own name.
PLAIN_NAME = "plain"
#: Mean and std that people name; ``resize`` is 256/224 of the crop in all of them.
PRESETS = {
    "imagenet": Preprocessing(),
    "half": Preprocessing(mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5)),
    "unit": Preprocessing(mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0)),
}
_FLAGS = ("labels", "preprocess", "input_size", "input", "output_kind", "activation")
PREPROCESS_HELP = (
    "imagenet, half ((x - 0.5) / 0.5) or unit (0..1), a JSON file, or settings after a name: "
    "imagenet,resize=232,interpolation=bicubic,mean=0.5/0.5/0.5,std=0.5/0.5/0.5,color_order=BGR (default: imagenet)"
)


def add_card_flags(parser: argparse.ArgumentParser) -> None:
    """``--labels``, ``--input-size``, ``--preprocess``, ``--input``, ``--output-kind``, ``--activation``."""
    group = parser.add_argument_group(
        "plain model files", "for a file without a model card; a side-car FILE.json says the same"
    )
    group.add_argument("--labels", type=Path, metavar="FILE", help="class names: JSON, or one a line")
    add_preprocessing_flags(group)
    group.add_argument("--input", choices=("float32_nchw", "uint8_nhwc"), help="default: float32_nchw")
    group.add_argument("--output-kind", choices=("logits", "scores"), help="default: logits")
    group.add_argument("--activation", choices=("softmax", "sigmoid", "none"), help="default: softmax")


def add_device_flag(parser: argparse.ArgumentParser) -> None:
    """``--device``."""
    parser.add_argument(
        "--device",
        choices=DEVICES,
        help="auto: cuda where the model's runtime can use it, else cpu (default: auto) [LABELMILL_DEVICE]",
    )


def add_preprocessing_flags(parser: Any) -> None:
    """``--input-size`` and ``--preprocess``."""
    parser.add_argument("--input-size", type=positive, metavar="PIXELS", help="edge of the crop (default: 224)")
    parser.add_argument("--preprocess", metavar="SETTINGS", help=PREPROCESS_HELP)


def card_from_flags(args: argparse.Namespace, name: str) -> ModelCard | None:
    """The card that the flags describe, ``None`` without ``--labels``."""
    if args.labels is None:
        if given := _given(args):
            raise UsageError(f"a plain model file needs --labels beside {given}")
        return None
    return ModelCard(
        name=name,
        labels=read_labels(args.labels),
        preprocessing=parse_preprocessing(args.preprocess, input_size=args.input_size),
        input=args.input or "float32_nchw",
        output=args.output_kind or "logits",
        activation=args.activation or "softmax",
    )


def hand_on(args: argparse.Namespace, models: Sequence[str]) -> None:
    """Put the card of the flags into the environment, where this process and its children read it.

    Raises :class:`~jobs.errors.UsageError` where none of the models is a plain file, which alone would take it.
    """
    given = _given(args)
    if given and not any(not is_noop(model) and is_plain(resolve(model)) for model in models):
        raise UsageError(f"{given} would describe a plain model file; with a card of their own: {', '.join(models)}")
    if card := card_from_flags(args, PLAIN_NAME):
        os.environ[CARD_VARIABLE] = card.to_json()


def _given(args: argparse.Namespace) -> str:
    """The flags of a plain file that are there."""
    return ", ".join(f"--{flag.replace('_', '-')}" for flag in _FLAGS if getattr(args, flag) is not None)


def seconds(text: str) -> float:
    """The type of a time on the command line."""
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text!r} is no time in seconds above 0")
    return value


def parse_preprocessing(
    text: str | None, *, input_size: int | None = None, base: Preprocessing | None = None
) -> Preprocessing:
    """``base`` (or a preset) with the settings of ``text`` and a crop of ``input_size`` pixels.

    Raises :class:`~jobs.errors.UsageError` that names the setting.
    """
    prep = base or PRESETS["imagenet"]
    parts = [part for part in (text or "").split(",") if part]
    if parts and "=" not in parts[0]:
        prep = _named(parts.pop(0))
    if input_size is not None:
        prep = _resized(prep, input_size)
    return replace(prep, **dict(_setting(part) for part in parts))


def _named(name: str) -> Preprocessing:
    if name in PRESETS:
        return PRESETS[name]
    if not Path(name).is_file():
        raise UsageError(f"--preprocess {name!r} is neither {', '.join(PRESETS)} nor a JSON file")
    try:
        return Preprocessing.from_dict(json.loads(Path(name).read_text(encoding="utf-8")))
    except (ValueError, TypeError, AttributeError) as exc:
        raise ModelCardError(f"{name} is no preprocessing: {exc}") from exc


def _resized(prep: Preprocessing, size: int) -> Preprocessing:
    if prep.crop is None or isinstance(prep.resize, tuple):
        return replace(prep, resize=(size, size), crop=None)
    resize = None if prep.resize is None else round(prep.resize * size / prep.crop[0])
    return replace(prep, resize=resize, crop=(size, size))


def _setting(part: str) -> tuple[str, Any]:
    key, _, value = part.partition("=")
    known = {field.name for field in fields(Preprocessing)}
    if key not in known:
        raise UsageError(f"--preprocess: no setting {key!r}; known: {', '.join(sorted(known))}")
    try:
        return key, _value(key, value)
    except ValueError as exc:
        raise UsageError(f"--preprocess: {part!r} cannot be read: {exc}") from exc


def _value(key: str, value: str) -> Any:
    if key in ("mean", "std"):
        numbers = tuple(float(number) for number in value.split("/"))
        if len(numbers) != 3:
            raise ValueError("three numbers, with / between them")
        return numbers
    if key in ("resize", "crop"):
        if value == "none":
            return None
        sizes = tuple(int(number) for number in value.split("x"))
        if key == "crop" and len(sizes) == 1:
            return sizes * 2
        return sizes[0] if len(sizes) == 1 else sizes
    if key == "scaled_decode":
        return value in ("1", "true", "yes")
    allowed = {"interpolation": ("nearest", "bilinear", "bicubic", "lanczos"), "color_order": ("RGB", "BGR")}[key]
    if value not in allowed:
        raise ValueError(f"one of {', '.join(allowed)}")
    return value
