"""``labelmill-worker inspect``: what a model file says of itself."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

from jobs.errors import UsageError
from worker.models.card import ModelCard
from worker.models.flags import add_card_flags, hand_on
from worker.models.loader import digest, read_card, resolve
from worker.models.noop import is_noop
from worker.models.reader import file_format

__all__ = ["EPILOG", "add_arguments", "run"]

EPILOG = """examples:
  labelmill-worker inspect efficientnet-lite0
  labelmill-worker inspect --graph cifar10-cnn.onnx
  labelmill-worker inspect --code cifar10-cnn.pt
"""
#: How many class names are shown unless all are asked for.
SHOWN_LABELS = 5


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's arguments."""
    parser.add_argument("file", metavar="FILE", help="a model file, or the name of one in the model folder")
    show = parser.add_mutually_exclusive_group()
    show.add_argument("--graph", action="store_true", help="the operations, one a line")
    show.add_argument("--code", action="store_true", help="the readable source inside a TorchScript file")
    show.add_argument("--json", action="store_true", help="all of it, labels and golden sample too, as JSON")
    add_card_flags(parser)


def run(args: argparse.Namespace) -> int:
    """Print it."""
    hand_on(args, [args.file])
    if is_noop(args.file):
        raise UsageError(f"{args.file} is no file: it decodes nothing and gives the same scores for every image")
    path = resolve(args.file)
    kind = file_format(path)
    if args.code and kind != "torchscript":
        raise UsageError(f"{path} is {kind}; only TorchScript carries code; try --graph")
    if args.graph or args.code:
        from worker.models import anatomy

        lines = anatomy.code(path) if args.code else anatomy.graph(path, kind)
        print("\n".join(lines))
        return 0
    card = read_card(path)
    facts = {"file": str(path), "format": kind, "digest": digest(path), **_ends(path, kind)}
    if args.json:
        print(json.dumps({**facts, "card": asdict(card)}, ensure_ascii=False, indent=2))
    else:
        print("\n".join(f"{key:<14} {value}" for key, value in (*facts.items(), *_described(card))))
    return 0


def _ends(path: Any, kind: str) -> dict[str, str]:
    from worker.models import anatomy

    return anatomy.ends(path, kind)


def _described(card: ModelCard) -> Iterator[tuple[str, str]]:
    yield "name", f"{card.name}, version {card.version}"
    if card.source:
        yield "source", card.source
    more = ", ..." if len(card.labels) > SHOWN_LABELS else ""
    yield "labels", f"{len(card.labels)}: {', '.join(card.labels[:SHOWN_LABELS])}{more}"
    for key, value in asdict(card.preprocessing).items():
        yield key, str(value)
    yield "head", f"{card.output}, {card.activation}, top {card.top_k}"
    sample = card.golden
    yield "golden sample", "none" if sample is None else f"{len(sample['images'])} images, rtol {sample['rtol']:g}"
