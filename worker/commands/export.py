"""``labelmill-worker export``: from a PyTorch module to one model file."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from jobs.errors import UsageError
from jobs.parser import positive
from worker.models.flags import add_preprocessing_flags
from worker.models.reader import SUFFIX

__all__ = ["EPILOG", "add_arguments", "run"]

EPILOG = """examples:
  labelmill-worker export --arch densenet161 --weights densenet161.pth --format onnx --output densenet161.onnx
  labelmill-worker export --module mine.nets:build --weights mine.pth --labels labels.txt --input-size 64 \\
      --preprocess half --format torchscript --method script --output mine.pt
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's arguments."""
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--arch", metavar="NAME", help="a network of torchvision, efficientnet-lite0 or cifar10-cnn")
    what.add_argument("--module", metavar="PKG.MOD:FACTORY", help="a function or class that makes the network")
    parser.add_argument("--weights", type=Path, metavar="FILE", help="a state dict (default: the published one)")
    parser.add_argument("--labels", type=Path, metavar="FILE", help="class names: JSON, or one a line")
    add_preprocessing_flags(parser)
    parser.add_argument("--activation", choices=("softmax", "sigmoid", "none"), help="default: softmax")
    parser.add_argument("--format", choices=("onnx", "torchscript", "torch_export"), required=True)
    parser.add_argument("--method", choices=("auto", "trace", "script"), default="auto", help="default: auto")
    parser.add_argument("--opset", type=int, help="of an ONNX file (default: 20)")
    parser.add_argument("--name", help="the model's name (default: the output's, without its ending)")
    parser.add_argument("--model-version", default="1", metavar="TEXT", help="default: 1")
    parser.add_argument("--top-k", type=positive, default=5, metavar="N", help="labels of a result (default: 5)")
    parser.add_argument("--output", type=Path, required=True, metavar="FILE")


def run(args: argparse.Namespace) -> int:
    """Write the file and say how near to the module it is."""
    if args.opset is not None and args.format != "onnx":
        raise UsageError("--opset is of --format onnx")
    ending = SUFFIX[args.format]
    if args.output.suffix != ending and args.output.suffix in SUFFIX.values():  # any other says nothing
        raise UsageError(f"--format {args.format} is written as a file that ends in {ending}, not {args.output.name!a}")
    from worker.export.export import export_classifier
    from worker.export.onnx import OPSET

    network, card = _network(args)
    report = export_classifier(
        network, card, args.output, file_format=args.format, method=args.method, opset=args.opset or OPSET
    )
    print(f"{report.path}: {card.name}, {len(card.labels)} labels, by {report.method}")
    if report.note:
        print(f"note: {report.note}")
    print(f"largest difference from the module at batch sizes 1, 2 and 5: {report.largest_difference:.3g}")
    print(report.digest)
    return 0


def _network(args: argparse.Namespace) -> tuple[Any, Any]:
    """The network and its card, with what the flags say put over what the network brings."""
    from dataclasses import replace

    from worker.export.factory import from_factory
    from worker.export.zoo import architecture
    from worker.models.flags import parse_preprocessing
    from worker.models.labels import read_labels

    labels = read_labels(args.labels) if args.labels else None
    if args.arch:
        network, card = architecture(args.arch, args.weights, labels=labels)
    else:
        network, card = from_factory(args.module, args.weights, labels=labels)
    prep = parse_preprocessing(args.preprocess, input_size=args.input_size, base=card.preprocessing)
    return network, replace(
        card,
        name=args.name or args.output.stem,
        version=args.model_version,
        preprocessing=prep,
        activation=args.activation or card.activation,
        top_k=args.top_k,
    )
