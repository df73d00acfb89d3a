"""An environment of its own for each peer, made on first use in ``build/bench/peers``."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from hashlib import sha256
from pathlib import Path

from benchmarks.peers.catalogue import OURS, Contender

__all__ = ["FOLDER", "python_of"]

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "build" / "bench" / "peers"
CONSTRAINTS = (ROOT / "constraints.txt", Path(__file__).with_name("constraints.txt"))
#: This project's extras that decoding, the ONNX file and a Redis need; the project itself comes from the checkout.
EXTRAS = ("onnx", "embedded")


def python_of(name: str, contender: Contender) -> Path:
    """The interpreter of a contender's environment; raises CalledProcessError where it cannot be made."""
    if name == OURS:
        return Path(sys.executable)
    folder = FOLDER / contender.package
    python, stamp = folder / "bin" / "python", folder / ".installed"
    wanted = [contender.requirement, *_own_requirements()]
    digest = sha256("\n".join([*wanted, *(file.read_text() for file in CONSTRAINTS)]).encode()).hexdigest()
    if not (stamp.exists() and stamp.read_text() == digest):
        print(f"installing {contender.requirement} into {folder.relative_to(ROOT)}", file=sys.stderr)
        subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
        pinned = [word for file in CONSTRAINTS for word in ("--constraint", str(file))]
        subprocess.run([str(python), "-m", "pip", "install", "--quiet", *pinned, *wanted], check=True)
        stamp.write_text(digest)
    return python


def _own_requirements() -> list[str]:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = [line for extra in EXTRAS for line in project["optional-dependencies"][extra]]
    return sorted({*project["dependencies"], *extras})
