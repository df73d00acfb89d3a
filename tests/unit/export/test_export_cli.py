"""``labelmill-worker export``: what it writes, what it says, and how it ends."""

from __future__ import annotations

import textwrap
from pathlib import Path

import onnx
import pytest
import torch

from worker.cli import main
from worker.export.zoo import architecture
from worker.models import golden, loader

Capture = pytest.CaptureFixture[str]

NETS = """
    import torch
    from torch import nn

    class Plain(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(3, 2, 8)

        def forward(self, x):
            return self.conv(x).mean(dim=(2, 3))

    class Unscriptable(Plain):
        def forward(self, x):
            return sum((part for part in (super().forward(x),)), torch.zeros(()))

    def broken():
        raise RuntimeError("no GPU here")

    def number():
        return 3

    built = Plain()
"""


@pytest.fixture(autouse=True)
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with somebody's code, labels and weights; it is the current one."""
    (tmp_path / "nets.py").write_text(textwrap.dedent(NETS))
    (tmp_path / "labels.txt").write_text("cat\ndog\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(__import__("sys").modules, "nets", raising=False)
    return tmp_path


def export(*arguments: str, output: str = "out.pt", file_format: str = "torchscript") -> int:
    return main(["export", *arguments, "--format", file_format, "--output", output])


def own(factory: str, *arguments: str, **options: str) -> int:
    return export(
        *("--module", f"nets:{factory}", "--labels", "labels.txt", "--input-size", "8", *arguments), **options
    )


def test_a_network_of_the_zoo_becomes_a_file_in_one_command(capsys: Capture) -> None:
    assert export("--arch", "cifar10-cnn") == 0

    out = capsys.readouterr().out
    assert "largest difference from the module at batch sizes 1, 2 and 5:" in out
    assert loader.digest(Path("out.pt")) in out
    golden.verify(loader.load("out.pt"))


@pytest.mark.parametrize("factory", ["Plain", "built"])
def test_a_network_of_ones_own_is_a_class_a_function_or_an_object(factory: str) -> None:
    assert own(factory, "--preprocess", "half", "--name", "pets", "--model-version", "3", "--top-k", "1") == 0

    card = loader.load("out.pt").card
    assert (card.name, card.version, card.top_k, card.labels) == ("pets", "3", 1, ("cat", "dog"))
    assert card.preprocessing.size == (8, 8)
    assert card.preprocessing.mean == (0.5, 0.5, 0.5)


def test_weights_are_put_into_ones_own_network(project: Path) -> None:
    import nets

    torch.save({key: value + 1 for key, value in nets.Plain().state_dict().items()}, "pets.pth")

    assert own("Plain", "--weights", "pets.pth") == 0

    assert "pets.pth sha256:" in loader.read_card(project / "out.pt").source


def test_onnx_takes_an_opset(capsys: Capture) -> None:
    assert own("Plain", "--opset", "18", file_format="onnx", output="out.onnx") == 0

    assert onnx.load("out.onnx").opset_import[0].version == 18


def failure(capsys: Capture, code: int, *named: str) -> None:
    (line,) = capsys.readouterr().err.splitlines()
    assert all(name in line for name in named), line
    assert not list(Path().glob("*out*")), "nothing half-written"


def test_weights_that_do_not_fit_name_the_keys(capsys: Capture) -> None:
    torch.save(architecture("cifar10-cnn")[0].state_dict(), "cifar.pth")

    assert own("Plain", "--weights", "cifar.pth") == 17
    failure(capsys, 17, "missing conv.weight", "unexpected conv1.weight")


def test_a_whole_pickled_module_is_refused(capsys: Capture) -> None:
    torch.save(torch.nn.Linear(1, 1), "whole.pth")

    assert own("Plain", "--weights", "whole.pth") == 18
    failure(capsys, 18, "weights_only=False")


def test_a_module_that_cannot_be_scripted_gives_its_message_and_what_to_try(capsys: Capture) -> None:
    assert own("Unscriptable", "--method", "script") == 21
    failure(capsys, 21, "Unscriptable", "--method trace")


@pytest.mark.parametrize(
    ("reference", "code", "named"),
    [
        ("nets:Missing", 19, "Missing"),
        ("missing_nets:Plain", 19, "missing_nets"),
        ("nets", 19, "PKG.MOD:FACTORY"),
        ("nets:broken", 19, "no GPU here"),
        ("nets:number", 19, "int"),
    ],
)
def test_a_reference_that_leads_to_no_network_is_named(reference: str, code: int, named: str, capsys: Capture) -> None:
    assert export("--module", reference, "--labels", "labels.txt") == code
    failure(capsys, code, named)


def test_a_network_of_ones_own_needs_labels(capsys: Capture) -> None:
    assert export("--module", "nets:Plain") == 14
    failure(capsys, 14, "--labels")


def test_a_wrong_number_of_labels_is_said(capsys: Capture) -> None:
    Path("labels.txt").write_text("cat\ndog\nmouse\n")

    assert own("Plain") == 14
    failure(capsys, 14, "2 scores", "3 labels")


def test_an_unknown_architecture_is_said(capsys: Capture) -> None:
    assert export("--arch", "resnet51") == 19
    failure(capsys, 19, "resnet51")


def test_opset_is_of_onnx_only(capsys: Capture) -> None:
    assert own("Plain", "--opset", "18") == 2
    failure(capsys, 2, "--opset")


def test_an_output_that_cannot_be_written_is_said(capsys: Capture) -> None:
    Path("file").write_text("")

    assert own("Plain", output="file/model.pt") == 2
    failure(capsys, 2, "file")


def test_a_name_that_ends_like_another_format_is_refused(project: Path, capsys: Capture) -> None:
    assert export("--arch", "cifar10-cnn", file_format="onnx", output="net.pt") == 2

    assert "--format onnx is written as a file that ends in .onnx, not 'net.pt'" in capsys.readouterr().err
    assert not (project / "net.pt").exists()


def test_a_name_that_ends_like_no_format_says_nothing(capsys: Capture) -> None:
    assert export("--arch", "cifar10-cnn", output="net.pth") == 0

    golden.verify(loader.load("net.pth"))
