"""Which device computes, and in which arithmetic. What a GPU would do runs here on the processor where it can."""

from __future__ import annotations

import logging
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from plain import plain_onnx, with_changed_weights

from jobs.errors import GoldenSampleError, LabelmillError, ModelRunError, ModelUnsupportedError
from worker.cli import main
from worker.export.prepare import prepare
from worker.models import golden, loader, torch_export, torchscript
from worker.models.card import ModelCard
from worker.models.device import asked_for, first_that_is_right, on_device
from worker.models.onnx import OnnxRuntime, open_session
from worker.models.onnx_cuda import BoundRun, provider_options
from worker.models.runtime import Runtime
from worker.models.torch_ways import EXACT, GPU_WAYS, Way
from worker.models.torchscript import TorchRuntime

HALF = Way(torch.float16, channels_last=True)
COARSE = Way(torch.bfloat16, channels_last=True)
MODULE = {"torchscript": torchscript._module, "torch_export": torch_export._module}


@pytest.fixture(autouse=True)
def no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the machine has, these tests see none."""
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    monkeypatch.delenv("LABELMILL_DEVICE", raising=False)


@pytest.fixture(params=list(MODULE))
def torch_file(request: pytest.FixtureRequest, tiny_files: dict[str, Path]) -> tuple[str, Path]:
    """A format and its file."""
    return request.param, tiny_files[request.param]


def torch_runtime(kind: str, path: Path, way: Way) -> TorchRuntime:
    return TorchRuntime(MODULE[kind](path, "cpu", way), loader.read_card(path), loader.digest(path), "cpu", way)


def bound_onnx(path: Path) -> OnnxRuntime:
    card, session = loader.read_card(path), open_session(path)
    return OnnxRuntime(session, card, loader.digest(path), run=BoundRun(session, (len(card.labels),), "cpu"))


def images(count: int) -> np.ndarray:
    return np.random.default_rng(count).integers(0, 256, (count, 16, 16, 3), np.uint8)


# -- the choice -------------------------------------------------------------------------------------


def test_the_command_line_stands_over_the_environment_and_that_over_auto(monkeypatch: pytest.MonkeyPatch) -> None:
    assert asked_for(None) == "auto"
    monkeypatch.setenv("LABELMILL_DEVICE", "cuda")
    assert asked_for(None) == "cuda"
    assert asked_for("cpu") == "cpu"


def test_auto_is_the_processor_where_there_is_no_gpu(model_file: Path) -> None:
    runtime = loader.load(model_file, device="auto")

    assert (runtime.device, runtime.precision) == ("cpu", "float32")
    np.testing.assert_array_equal(runtime.predict(images(3)), loader.load(model_file, device="cpu").predict(images(3)))


def test_cuda_by_name_must_be_there(model_file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for command in ("check", "bench"):
        assert main([command, str(model_file), "--device", "cuda"]) == 16
        (line,) = capsys.readouterr().err.splitlines()
        assert "'cuda'" in line
        assert "install" in line


def test_auto_tries_a_gpu_first_and_says_why_it_is_not_taken(
    tiny_files: dict[str, Path], caplog: pytest.LogCaptureFixture
) -> None:
    tried: list[str] = []

    def load(device: str) -> Runtime:
        tried.append(device)
        if device == "cuda":
            raise ModelUnsupportedError("its memory is full")
        return loader.load(tiny_files["onnx"])

    runtime = on_device("auto", load, has_cuda=lambda: True, needs="")

    assert (tried, runtime.device) == (["cuda", "cpu"], "cpu")
    assert "its memory is full" in caplog.text


def test_auto_does_not_take_a_gpu_that_answers_wrong(
    tiny_files: dict[str, Path], copy_of: Callable[[Path], Path]
) -> None:
    wrong = copy_of(tiny_files["onnx"])
    with_changed_weights(wrong, 1.01)
    files = {"cuda": wrong, "cpu": tiny_files["onnx"]}

    found = {}
    for device in ("auto", "cuda"):
        runtime = on_device(device, lambda name: loader.load(files[name]), has_cuda=lambda: True, needs="")
        found[device] = runtime.digest

    assert found == {"auto": loader.digest(files["cpu"]), "cuda": loader.digest(files["cuda"])}


def test_a_damaged_file_is_said_once_whatever_the_device(torch_file: tuple[str, Path], tmp_path: Path) -> None:
    path = tmp_path / torch_file[1].name
    path.write_bytes(torch_file[1].read_bytes()[:-100])
    card = loader.read_card(torch_file[1])
    load = partial(torchscript._load, path, card, "", MODULE[torch_file[0]])

    with pytest.raises(LabelmillError) as caught:
        on_device("auto", load, has_cuda=lambda: True, needs="")

    assert caught.value.exit_code == 13


def test_a_torch_without_cuda_is_no_damaged_file(torch_file: tuple[str, Path]) -> None:
    kind, path = torch_file

    with pytest.raises(ModelUnsupportedError, match="does not take the model"):
        MODULE[kind](path, "cuda", EXACT)


@pytest.mark.filterwarnings("ignore:Specified provider:UserWarning")
def test_a_session_that_quietly_leaves_the_gpu_out_is_refused(tiny_files: dict[str, Path]) -> None:
    with pytest.raises(ModelUnsupportedError, match="finds no GPU"):
        open_session(tiny_files["onnx"], device="cuda")


# -- the arithmetic -----------------------------------------------------------------------------------


def test_the_first_arithmetic_that_meets_the_golden_sample_is_taken(
    torch_file: tuple[str, Path], caplog: pytest.LogCaptureFixture
) -> None:
    kind, path = torch_file
    caplog.set_level(logging.INFO)

    runtime = first_that_is_right((COARSE, HALF, EXACT), partial(torch_runtime, kind, path), loader.read_card(path))

    assert runtime.precision == "float16"
    refused, taken = caplog.messages
    assert "does not compute in bfloat16" in refused
    assert "computes in float16" in taken


def test_a_model_of_the_house_is_too_exact_for_float16(tmp_path: Path) -> None:
    path = prepare("cifar10-cnn", file_format="torchscript", model_dir=tmp_path)

    runtime = first_that_is_right(GPU_WAYS, partial(torch_runtime, "torchscript", path), loader.read_card(path))

    assert runtime.precision == "float32"
    with pytest.raises(GoldenSampleError):
        golden.verify(torch_runtime("torchscript", path, HALF))


def test_where_none_meets_it_the_exact_one_is_left(torch_file: tuple[str, Path]) -> None:
    kind, path = torch_file

    runtime = first_that_is_right((COARSE, EXACT), partial(torch_runtime, kind, path), loader.read_card(path))

    assert runtime.precision == "float32"


def test_without_a_golden_sample_nothing_but_the_exact_one_is_made(tiny_files: dict[str, Path], tmp_path: Path) -> None:
    card = ModelCard("bare", ("a", "b", "c"), golden=None)
    made: list[Way] = []

    def make(way: Way) -> TorchRuntime:
        made.append(way)
        return torch_runtime("torchscript", tiny_files["torchscript"], way)

    first_that_is_right(GPU_WAYS, make, card)

    assert made == [EXACT]


@pytest.mark.parametrize("way", GPU_WAYS, ids=str)
def test_every_way_for_a_gpu_meets_the_golden_sample_in_any_order_and_batch(
    torch_file: tuple[str, Path], way: Way
) -> None:
    runtime = torch_runtime(*torch_file, way)
    for _ in range(3):  # TorchScript compiles for a shape in its first runs
        golden.verify(runtime)

    together = runtime.predict(images(5))
    assert together.dtype == np.float32
    np.testing.assert_allclose(runtime.predict(images(5)[::-1])[::-1], together, rtol=2e-3)
    exact = torch_runtime(*torch_file, EXACT).predict(images(5))
    np.testing.assert_allclose(together, exact, rtol=2e-3)
    assert (way.dtype is None) or not np.array_equal(together, exact)


def test_weights_are_laid_out_as_the_way_says(tiny_files: dict[str, Path]) -> None:
    for way in (EXACT, HALF):
        module = torch_export._module(tiny_files["torch_export"], "cpu", way)
        (kernel,) = (weights for weights in module.parameters() if weights.dim() == 4)
        assert kernel.is_contiguous(memory_format=torch.channels_last) == way.channels_last


def test_a_program_goes_to_another_device_with_all_it_holds(tiny_files: dict[str, Path]) -> None:
    module = torch_export.moved(torch_export.open_program(tiny_files["torch_export"]), "meta").module()

    held = [*module.parameters(), *module.buffers()]
    assert {tensor.device.type for tensor in held} == {"meta"}
    assert module(torch.zeros((2, 16, 16, 3), dtype=torch.uint8, device="meta")).shape == (2, 7)


# -- ONNX Runtime with bound memory ----------------------------------------------------------------------


def test_bound_memory_gives_the_same_scores_for_batches_of_changing_size(tiny_files: dict[str, Path]) -> None:
    bound, plain = bound_onnx(tiny_files["onnx"]), loader.load(tiny_files["onnx"])

    answers = {count: bound.predict(images(count)) for count in (4, 4, 1, 4, 9, 0)}

    for count, answer in answers.items():
        np.testing.assert_array_equal(answer, plain.predict(images(count)))
    golden.verify(bound)


def test_an_answer_outlives_the_next_run_and_the_images_stay_as_they_were(tiny_files: dict[str, Path]) -> None:
    bound = bound_onnx(tiny_files["onnx"])
    first, second = images(3), images(3)[::-1]
    kept = first.copy()

    answer = bound.predict(first)
    said = answer.copy()
    bound.predict(second)

    np.testing.assert_array_equal(answer, said)
    np.testing.assert_array_equal(first, kept)
    np.testing.assert_array_equal(bound.predict(second), said[::-1])


def test_threads_do_not_share_bound_memory(tiny_files: dict[str, Path]) -> None:
    bound, plain = bound_onnx(tiny_files["onnx"]), loader.load(tiny_files["onnx"])
    batches = [np.full((4, 16, 16, 3), shade, np.uint8) for shade in range(0, 240, 10)]
    expected = [plain.predict(batch) for batch in batches]

    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(bound.predict, batches * 8))

    for answer, right in zip(answers, expected * 8, strict=True):
        np.testing.assert_array_equal(answer, right)


def test_a_plain_file_of_float32_runs_in_bound_memory_too(tmp_path: Path) -> None:
    path = plain_onnx(tmp_path / "plain.onnx")
    session = open_session(path)
    batch = np.random.default_rng(1).random((3, 3, 8, 8), np.float32)

    np.testing.assert_allclose(BoundRun(session, (3,), "cpu")(batch), batch.mean(axis=(2, 3)), rtol=1e-5)


def test_a_batch_that_does_not_fit_is_an_error_of_the_run_and_the_next_one_works(tiny_files: dict[str, Path]) -> None:
    bound = bound_onnx(tiny_files["onnx"])

    with pytest.raises(ModelRunError):
        bound.predict(np.zeros((2, 5, 7, 3), np.float32))

    golden.verify(bound)


def test_processes_that_share_a_gpu_take_what_they_ask_for_and_tf32_is_a_choice() -> None:
    exact, quick = provider_options("float32"), provider_options("tf32")

    assert exact["arena_extend_strategy"] == "kSameAsRequested"
    assert (exact.pop("use_tf32"), quick.pop("use_tf32")) == ("0", "1")
    assert exact == quick


# -- what is said -----------------------------------------------------------------------------------------


def test_check_says_what_computes(model_file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", str(model_file)]) == 0
    assert "device: cpu, float32" in capsys.readouterr().out.splitlines()


def test_a_device_of_another_name_is_refused(
    model_file: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(SystemExit) as end:
        main(["check", str(model_file), "--device", "abacus"])
    assert end.value.code == 2

    monkeypatch.setenv("LABELMILL_DEVICE", "abacus")
    capsys.readouterr()
    assert main(["check", str(model_file)]) == 16
    assert "'abacus'" in capsys.readouterr().err


def test_a_golden_sample_that_fails_on_the_device_is_told_to_whoever_asked_for_it(tiny_files: dict[str, Path]) -> None:
    runtime = torch_runtime("torchscript", tiny_files["torchscript"], COARSE)

    with pytest.raises(GoldenSampleError, match="differently here"):
        golden.verify(runtime)
