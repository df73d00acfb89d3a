"""``labelmill-worker prepare``."""

from __future__ import annotations

import argparse
from pathlib import Path

from worker.export.prepare import DEFAULT_MODEL, prepare
from worker.models.loader import HOUSE_MODELS, MODEL_DIR_VARIABLE, default_model_dir
from worker.models.reader import SUFFIX

__all__ = ["EPILOG", "add_arguments", "run"]

EPILOG = """examples:
  labelmill-worker prepare
  labelmill-worker prepare cifar10-cnn --format torchscript
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's arguments."""
    parser.add_argument(
        "name", nargs="?", default=DEFAULT_MODEL, help=f"{' or '.join(HOUSE_MODELS)} (default: {DEFAULT_MODEL})"
    )
    parser.add_argument("--format", choices=tuple(SUFFIX), default="onnx", help="default: onnx")
    parser.add_argument(
        "--model-dir",
        type=Path,
        help=f"where to put it (${MODEL_DIR_VARIABLE}; default: {default_model_dir()})",
    )


def run(args: argparse.Namespace) -> int:
    """Print the path of the model's file; make it if it is not there."""
    print(prepare(args.name, file_format=args.format, model_dir=args.model_dir))
    return 0
