"""Other files of EfficientNet-Lite0, each made once and kept in ``build/bench``."""

from __future__ import annotations

import subprocess
import sys
from hashlib import sha256
from pathlib import Path

from benchmarks.images import make_images

__all__ = ["FOLDER", "int8_model", "is_int8_recommended", "random_model", "scaled_model"]

FOLDER = Path(__file__).resolve().parents[1] / "build" / "bench"
#: EfficientNet-Lite0's preprocessing, with scaled decoding allowed.
SCALED = "half,resize=256,interpolation=bicubic,mean=0.498039/0.498039/0.498039,std=0.50196/0.50196/0.50196"


def int8_model(*, scaled: bool = False) -> Path:
    """In INT8, of the model or of :func:`scaled_model`. What the command that makes it says stays beside it."""
    path = FOLDER / f"lite0-{'scaled-' if scaled else ''}int8-{_state()}.onnx"
    if not (path.exists() and _said(path).exists()):
        pictures = make_images("photo", 400)
        model = str(scaled_model()) if scaled else "efficientnet-lite0"
        said = _worker("quantize", model, "--calibration", str(pictures), "--output", str(path))
        _said(path).write_text(said)
    return path


def is_int8_recommended() -> bool:
    """Whether ``labelmill-worker quantize`` said "use it" of that file, on this machine."""
    return _said(int8_model()).read_text().splitlines()[-1].startswith("use it:")


def scaled_model() -> Path:
    """Its preprocessing allows scaled decoding."""
    path = FOLDER / "lite0-scaled.onnx"
    if not path.exists():
        settings = f"{SCALED},scaled_decode=true"
        export = ("export", "--arch", "efficientnet-lite0", "--format", "onnx", "--preprocess", settings)
        _worker(*export, "--output", str(path))
    return path


def random_model(arch: str) -> Path:
    """A network of torchvision with the weights it is born with: as fast as with others."""
    path = FOLDER / f"{arch}.onnx"
    if not path.exists():
        import torch

        from worker.export.vision import vision

        torch.manual_seed(0)
        FOLDER.mkdir(parents=True, exist_ok=True)
        weights = path.with_suffix(".pth")
        torch.save(getattr(vision().models, arch)(weights=None).state_dict(), weights)
        _worker("export", "--arch", arch, "--weights", str(weights), "--format", "onnx", "--output", str(path))
    return path


def _state() -> str:
    """Of the code that quantises and of the processor: another one may say something else."""
    sources = sorted((Path(__file__).resolve().parents[1] / "worker" / "export").glob("*.py"))
    flags = next((line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("flags")), "")
    return sha256(b"".join(path.read_bytes() for path in sources) + flags.encode()).hexdigest()[:8]


def _said(path: Path) -> Path:
    return path.with_suffix(".txt")


def _worker(*arguments: str) -> str:
    FOLDER.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "worker", *arguments]
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
