"""Networks that are not quite classifiers: refused with one line that names what is odd, or served as they are."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from jobs.errors import ExportError, ModelCardError, ModelFileError, ModelUnsupportedError, TraceError, UsageError
from worker.export.export import export_classifier
from worker.export.files import written_whole
from worker.export.torchscript import to_torchscript
from worker.models import golden, loader
from worker.models.card import ModelCard, Preprocessing

CARD = ModelCard(
    name="odd",
    labels=("a", "b", "c"),
    preprocessing=Preprocessing(resize=8, crop=(8, 8), mean=(0.5,) * 3, std=(0.5,) * 3),
)


class Plain(nn.Module):
    """Logits ``float32[N, 3]``, and a batch norm that has seen something."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(4)
        self.conv = nn.Conv2d(3, 3, 3)
        self.norm = nn.BatchNorm2d(3)
        self.norm.running_mean = torch.tensor([0.3, -0.2, 0.1])
        self.drop = nn.Dropout(0.5)

    def forward(self, x: Tensor) -> Tensor:
        return self.drop(self.norm(self.conv(x)).mean(dim=(2, 3)))


class Squeezed(Plain):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x).squeeze()


class TwoRows(Plain):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x)[:2]


class AlwaysDropped(Plain):
    def forward(self, x: Tensor) -> Tensor:
        return functional.dropout(super().forward(x), 0.5)


class OfTheBatch(Plain):
    def forward(self, x: Tensor) -> Tensor:
        return functional.batch_norm(self.conv(x), None, None, training=True).amax(dim=(2, 3))


class NotANumber(Plain):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) / 0 * 0


class Pair(Plain):
    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return super().forward(x), x


class Talkative(Plain):
    def forward(self, x: Tensor) -> Tensor:
        raise RuntimeError("first of all\nsecondly\nthirdly")


@pytest.mark.parametrize("file_format", ["onnx", "torchscript", "torch_export"])
@pytest.mark.parametrize(
    ("network", "kind", "said"),
    [
        (Squeezed, ExportError, "1 images of 8 x 8: IndexError"),
        (TwoRows, ModelCardError, r"shape \[2, 3\] for 4 images"),
        (AlwaysDropped, ExportError, "another answer at the second call"),
        (OfTheBatch, ExportError, "depends on the other images of its batch"),
        (NotANumber, ModelFileError, "NaN"),
        (Pair, ExportError, "give one tensor of logits"),
        (Talkative, ExportError, "RuntimeError: first of all; it must take"),
    ],
)
def test_what_is_no_classifier_is_refused_and_leaves_nothing(
    network: type[nn.Module], kind: type[ModelFileError], said: str, file_format: str, tmp_path: Path
) -> None:
    with pytest.raises(kind, match=said) as caught:
        export_classifier(network(), CARD, tmp_path / "odd", file_format=file_format)

    assert "\n" not in caught.value.message
    assert list(tmp_path.iterdir()) == []


class HalfTheBits(Plain):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x).to(torch.float16)


class InPlace(Plain):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.mul_(0.5))


@pytest.mark.parametrize("suffix", [".onnx", ".pt", ".pt2"])
@pytest.mark.parametrize("network", [Plain, HalfTheBits, InPlace])
def test_a_network_left_in_training_one_of_half_floats_and_one_that_writes_over_its_input_are_served(
    network: type[Plain], suffix: str, tmp_path: Path
) -> None:
    kind = {".onnx": "onnx", ".pt": "torchscript", ".pt2": "torch_export"}[suffix]

    export_classifier(network().train(), CARD, tmp_path / f"odd{suffix}", file_format=kind)

    runtime = loader.load(tmp_path / f"odd{suffix}")
    golden.verify(runtime)
    images = np.random.default_rng(3).integers(0, 256, (3, 8, 8, 3), np.uint8)
    with torch.inference_mode():
        logits = network().eval()((torch.from_numpy(images).permute(0, 3, 1, 2) / 255 - 0.5) / 0.5)
    np.testing.assert_allclose(runtime.predict(images), logits.float().softmax(1).numpy(), rtol=1e-3, atol=1e-5)


class InDoubles(Plain):
    def __init__(self) -> None:
        super().__init__()
        self.double()

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.double())


def test_what_onnxruntime_cannot_run_is_said_of_the_file_that_was_asked_for(tmp_path: Path) -> None:
    with pytest.raises(ModelUnsupportedError) as caught:
        export_classifier(InDoubles(), CARD, tmp_path / "doubles.onnx")

    assert caught.value.message.startswith(f"{tmp_path / 'doubles.onnx'} ")
    assert list(tmp_path.iterdir()) == []


def test_a_folder_in_the_place_of_the_file_is_said_before_the_work(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="is a folder"), written_whole(tmp_path):
        pytest.fail("the work began")

    assert list(tmp_path.iterdir()) == []


def test_a_number_taken_from_the_data_is_named_where_the_trace_drifts() -> None:
    class Repeated(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x * int(x.abs().mean() * 10)

    with pytest.raises(TraceError, match=r"number taken from the data at .*test_odd_networks\.py:\d+"):
        to_torchscript(Repeated(), (torch.ones(2, 3),), method="trace")
