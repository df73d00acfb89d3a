"""Files that no worker can serve: each way has one clear line and an exit code of its own."""

from __future__ import annotations

import itertools
import json
import zipfile
from collections.abc import Callable
from pathlib import Path

import onnx
import pytest
import torch
from plain import SIZE, ChannelMeans, ChannelMeansOfOne, plain_onnx, plain_torchscript
from torch import nn

from jobs.errors import (
    FixedBatchError,
    ModelCardError,
    ModelCorruptError,
    ModelFileError,
    ModelUnsupportedError,
)
from worker.models import golden, loader


def described(path: Path, **card: object) -> Path:
    document = {"labels": ["a", "b", "c"], "preprocessing": {"resize": SIZE, "crop": [SIZE, SIZE]}, **card}
    path.with_name(path.name + ".json").write_text(json.dumps(document))
    return path


def refusal(path: Path) -> ModelFileError:
    with pytest.raises(ModelFileError) as caught:
        loader.load(path)
    assert "\n" not in caught.value.message
    return caught.value


@pytest.mark.parametrize("kept", [0.0, 0.01, 0.3, 0.6, 0.99])
def test_a_file_cut_short_is_refused_as_damaged(kept: float, model_file: Path, copy_of: Callable[[Path], Path]) -> None:
    copy = copy_of(model_file)
    copy.write_bytes(copy.read_bytes()[: int(kept * copy.stat().st_size)])

    error = refusal(copy)

    assert isinstance(error, ModelCorruptError)
    assert str(copy) in error.message
    assert error.exit_code == 13


@pytest.mark.parametrize("name", ["noise.onnx", "noise.pt"])
def test_a_file_of_anything_is_refused_as_damaged(name: str, tmp_path: Path) -> None:
    path = described(tmp_path / name)
    path.write_bytes(b"<html>404 Not Found</html>" * 50)

    assert isinstance(refusal(path), ModelCorruptError)


def test_a_model_file_with_a_hole_in_its_middle_is_refused(model_file: Path, copy_of: Callable[[Path], Path]) -> None:
    copy = copy_of(model_file)
    data = bytearray(copy.read_bytes())
    data[len(data) // 8 : len(data) // 4] = bytes(len(data) // 4 - len(data) // 8)
    copy.write_bytes(bytes(data))

    with pytest.raises(ModelFileError):
        golden.verify(loader.load(copy))


def test_a_byte_changed_in_the_directory_of_a_zip_is_no_traceback(tiny_files: dict[str, Path], tmp_path: Path) -> None:
    whole, path = tiny_files["torchscript"].read_bytes(), tmp_path / "tiny.pt"
    entry, refused = whole.index(b"PK\x01\x02"), []
    for field, change in itertools.product(range(4, 70), (0xFF, 0x55, 0x80)):
        data = bytearray(whole)
        data[entry + field] ^= change
        path.write_bytes(bytes(data))
        try:
            loader.read_card(path)
        except ModelFileError as error:
            refused.append(error.message)

    assert refused
    assert not [message for message in refused if "\n" in message]


def test_what_onnxruntime_has_to_say_comes_in_the_one_line(
    tmp_path: Path, tiny_files: dict[str, Path], capfd: pytest.CaptureFixture[str]
) -> None:
    refusal(described(plain_onnx(tmp_path / "hidden.onnx", before=[1, 3, SIZE, SIZE])))
    data = tiny_files["onnx"].read_bytes()
    # An operator whose name is no text: onnxruntime's Python would print a banner and try once more.
    (tmp_path / "tiny.onnx").write_bytes(data.replace(b"Relu", b"\xf3elu"))
    refusal(tmp_path / "tiny.onnx")

    assert capfd.readouterr() == ("", "")


def test_a_file_of_weights_is_no_model_and_says_how_to_make_one(tmp_path: Path) -> None:
    path = tmp_path / "weights.pt"
    torch.save(nn.Linear(2, 2).state_dict(), path)

    error = refusal(path)

    assert isinstance(error, ModelUnsupportedError)
    assert "labelmill-worker export" in error.message


def test_a_zip_of_anything_else_is_no_model(tmp_path: Path) -> None:
    path = tmp_path / "holiday.pt"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("photos/cat.txt", "cat")

    assert isinstance(refusal(path), ModelUnsupportedError)


@pytest.mark.parametrize("batch", [1, 4])
def test_an_onnx_file_of_a_fixed_batch_says_how_to_free_it(batch: int, tmp_path: Path) -> None:
    error = refusal(described(plain_onnx(tmp_path / "fixed.onnx", batch=batch)))

    assert isinstance(error, FixedBatchError)
    assert f"fixed at {batch}" in error.message
    assert "dynamic_shapes" in error.message
    assert error.exit_code == 15


def test_a_batch_that_is_fixed_inside_the_graph_is_found_at_load(tmp_path: Path) -> None:
    error = refusal(described(plain_onnx(tmp_path / "hidden.onnx", before=[1, 3, SIZE, SIZE])))

    assert isinstance(error, FixedBatchError)
    assert "one image but not 2" in error.message


@pytest.mark.parametrize("name", ["nan.onnx", "nan.pt"])
def test_a_plain_file_whose_scores_are_no_numbers_is_refused(name: str, tmp_path: Path) -> None:
    class NotANumber(ChannelMeans):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return super().forward(x).log()

    path = tmp_path / name
    plain = plain_onnx(path, after="Log") if path.suffix == ".onnx" else plain_torchscript(path, NotANumber())

    assert "NaN" in refusal(described(plain)).message


def test_weights_in_a_second_file_are_refused_for_the_digest_would_not_cover_them(
    tiny_files: dict[str, Path], tmp_path: Path
) -> None:
    path = tmp_path / "tiny.onnx"
    onnx.save(onnx.load(tiny_files["onnx"]), path, save_as_external_data=True, location="tiny.data", size_threshold=0)
    assert (tmp_path / "tiny.data").is_file()

    error = refusal(path)

    assert isinstance(error, ModelUnsupportedError)
    assert "onnx.save(onnx.load(FILE), NEW)" in error.message
    onnx.save(onnx.load(path), tmp_path / "one.onnx")
    golden.verify(loader.load(tmp_path / "one.onnx"))


def test_a_torchscript_file_that_takes_one_image_only_is_refused(tmp_path: Path) -> None:
    path = described(plain_torchscript(tmp_path / "one.pt", ChannelMeansOfOne()))

    assert isinstance(refusal(path), FixedBatchError | ModelCardError)


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"operator": "Classify"}, "Classify"),
        ({"operator": "Classify", "domain": "com.example"}, "com.example"),
        ({"opset": 99}, "opset 99"),
        ({"ir_version": 99}, "IR version"),
    ],
)
def test_what_onnxruntime_does_not_know_is_named(options: dict[str, object], named: str, tmp_path: Path) -> None:
    error = refusal(described(plain_onnx(tmp_path / "new.onnx", **options)))

    assert isinstance(error, ModelUnsupportedError)
    assert named in error.message
    assert error.exit_code == 16


def test_a_model_of_two_inputs_is_no_classifier(tmp_path: Path) -> None:
    error = refusal(described(plain_onnx(tmp_path / "two.onnx", inputs=2)))

    assert isinstance(error, ModelUnsupportedError)
    assert "x0, x1" in error.message


@pytest.mark.parametrize(
    ("card", "named"),
    [
        ({"input": "uint8_nhwc"}, "float"),
        ({"preprocessing": {"resize": 9, "crop": [9, 9]}}, "[3, 9, 9]"),
        ({"preprocessing": {"resize": 9, "crop": None}}, "crop"),
    ],
)
def test_a_card_that_does_not_fit_the_input_is_refused(card: dict[str, object], named: str, tmp_path: Path) -> None:
    error = refusal(described(plain_onnx(tmp_path / "plain.onnx"), **card))

    assert isinstance(error, ModelCardError)
    assert named in error.message


def test_a_torchscript_file_with_an_unknown_operator_is_refused(tmp_path: Path, tiny_files: dict[str, Path]) -> None:
    path = tmp_path / "tiny.pt"
    with zipfile.ZipFile(tiny_files["torchscript"]) as source, zipfile.ZipFile(path, "w") as target:
        for name in source.namelist():
            data = source.read(name)
            if name.endswith(".py"):
                data = data.replace(b"torch.softmax(", b"torch.hardmaxi(")
            if not name.endswith(".debug_pkl"):
                target.writestr(zipfile.ZipInfo(name), data)

    error = refusal(path)

    assert isinstance(error, ModelUnsupportedError)
    assert "hardmaxi" in error.message


def test_a_device_that_is_not_here_is_named(model_file: Path) -> None:
    with pytest.raises(ModelUnsupportedError, match="'abacus'"):
        loader.load(model_file, device="abacus")
