"""Test images of CIFAR-10 as 32 x 32 PNG files, for benchmarks and for a look at a model's answers.

    python examples/cifar10/write_images.py build/cifar10/images --count 1000
    python examples/cifar10/write_images.py build/cifar10/by-class --by-class       # airplane/00003.png, ...

A file's name is its index among the 10,000 and its class: 00000-cat.png.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from data import Images, Labels, add_arguments, load
from PIL import Image

from jobs.errors import LabelmillError, UsageError
from worker.export.cifar10 import CLASSES

__all__ = ["main", "write_images"]


def write_images(images: Images, labels: Labels, folder: Path, *, by_class: bool = False) -> list[Path]:
    """Write ``uint8[N, 32, 32, 3]`` as PNG files and return their paths, in order.

    Their class is in the file's name, or with ``by_class`` in the folder's.
    """
    paths = []
    for index, (image, label) in enumerate(zip(images, labels, strict=True)):
        name = CLASSES[label]
        path = folder / name / f"{index:05}.png" if by_class else folder / f"{index:05}-{name}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(path)
        paths.append(path)
    return paths


def main(argv: list[str] | None = None) -> int:
    """Write the first ``--count`` test images."""
    parser = argparse.ArgumentParser(description="Write CIFAR-10's test images as PNG files.")
    add_arguments(parser)
    parser.add_argument("folder", type=Path, help="made if it is not there")
    parser.add_argument("--count", type=int, default=10_000, help="the first N of them [10000]")
    parser.add_argument("--by-class", action="store_true", help="one folder a class")
    args = parser.parse_args(argv)
    try:
        if not 0 < args.count <= 10_000:
            raise UsageError(f"--count {args.count} is not between 1 and 10000")
        data = load(args.cache, args.source)
        images, labels = data.test_images[: args.count], data.test_labels[: args.count]
        paths = write_images(images, labels, args.folder, by_class=args.by_class)
    except LabelmillError as exc:
        print(f"error: {exc.message}", file=sys.stderr)
        return exc.exit_code
    print(f"{len(paths)} images in {args.folder}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
