"""The commands that look at a model file, and what they end with."""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from plain import SIZE, plain_onnx, plain_torchscript, with_changed_weights

from worker.cli import COMMANDS, main
from worker.models import loader
from worker.models.flags import add_card_flags, hand_on
from worker.models.reader import read_card

Capture = pytest.CaptureFixture[str]


def lines_of_error(capsys: Capture) -> list[str]:
    return capsys.readouterr().err.splitlines()


def test_check_says_ready_and_what_it_measured(model_file: Path, capsys: Capture) -> None:
    assert main(["check", str(model_file)]) == 0

    out = capsys.readouterr().out
    assert loader.digest(model_file) in out
    assert "golden sample: met" in out
    assert "batch 1: warm after" in out
    assert out.splitlines()[-1] == "READY"


def test_check_refuses_a_file_whose_weights_were_changed(
    tiny_files: dict[str, Path], copy_of: Callable[[Path], Path], capsys: Capture
) -> None:
    copy = copy_of(tiny_files["onnx"])
    with_changed_weights(copy, 1.01)

    assert main(["check", str(copy)]) == 11

    streams = capsys.readouterr()
    assert "READY" not in streams.out
    assert len(streams.err.splitlines()) == 1
    assert "golden sample" in streams.err


def test_each_way_to_be_bad_has_an_exit_code_of_its_own(
    model_file: Path, copy_of: Callable[[Path], Path], tmp_path: Path, capsys: Capture
) -> None:
    cut = copy_of(model_file)
    cut.write_bytes(cut.read_bytes()[:-100])
    fixed = plain_onnx(tmp_path / "fixed.onnx", batch=1)
    new = plain_onnx(tmp_path / "new.onnx", opset=99)
    flags = ["--labels", str(tmp_path / "labels.txt"), "--input-size", str(SIZE)]
    (tmp_path / "labels.txt").write_text("a\nb\nc\n")

    codes = [
        main(["check", str(tmp_path / "gone.onnx")]),
        main(["check", str(cut)]),
        main(["check", str(plain_onnx(tmp_path / "bare.onnx"))]),
        main(["check", str(fixed), *flags]),
        main(["check", str(new), *flags]),
    ]

    assert codes == [12, 13, 14, 15, 16]
    assert len(lines_of_error(capsys)) == len(codes)


@pytest.mark.parametrize("suffix", ["onnx", "pt"])
def test_flags_describe_a_plain_file(
    suffix: str, tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("LABELMILL_MODEL_CARD", raising=False)
    make = plain_onnx if suffix == "onnx" else plain_torchscript
    path = make(tmp_path / f"plain.{suffix}")
    labels = tmp_path / "labels.json"
    labels.write_text('{"0": ["n1", "red"], "1": ["n2", "green"], "2": ["n3", "blue"]}')
    flags = ["--labels", str(labels), "--preprocess", "half,interpolation=bicubic", "--input-size", str(SIZE)]

    assert main(["check", str(path), *flags]) == 0
    assert "has none" in capsys.readouterr().out

    assert main(["inspect", str(path), *flags, "--json"]) == 0
    card = json.loads(capsys.readouterr().out)["card"]
    assert card["labels"] == ["red", "green", "blue"]
    assert card["preprocessing"]["mean"] == [0.5, 0.5, 0.5]
    assert card["preprocessing"]["crop"] == [SIZE, SIZE]
    assert card["preprocessing"]["interpolation"] == "bicubic"


@pytest.mark.parametrize(
    ("flags", "named"),
    [
        (["--preprocess", "imagenet"], "--labels beside --preprocess"),
        (["--activation", "none", "--output-kind", "scores"], "--labels beside --output-kind, --activation"),
        (["--labels", "LABELS", "--preprocess", "magic"], "'magic'"),
        (["--labels", "LABELS", "--preprocess", "size=3"], "'size'"),
        (["--labels", "LABELS", "--preprocess", "mean=1"], "mean"),
        (["--labels", "LABELS", "--preprocess", "resize=big"], "resize"),
    ],
)
def test_a_flag_that_cannot_be_read_is_named(flags: list[str], named: str, tmp_path: Path, capsys: Capture) -> None:
    (tmp_path / "labels.txt").write_text("a\nb\nc\n")
    flags = [str(tmp_path / "labels.txt") if flag == "LABELS" else flag for flag in flags]

    assert main(["check", str(plain_onnx(tmp_path / "plain.onnx")), *flags]) == 2

    (line,) = lines_of_error(capsys)
    assert named in line


@pytest.mark.parametrize("command", ["check", "inspect", "bench", "tune", "serve --model"])
def test_flags_of_a_plain_file_are_refused_where_there_is_none(
    command: str, model_file: Path, tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LABELMILL_MODEL", "")
    (tmp_path / "labels.txt").write_text("a\nb\nc\n")
    described = plain_onnx(tmp_path / "plain.onnx")
    described.with_name("plain.onnx.json").write_text('{"labels": "labels.txt"}')

    for model in ("noop", str(model_file), str(described)):
        assert main([*command.split(), model, "--labels", str(tmp_path / "labels.txt")]) == 2
        (line,) = lines_of_error(capsys)
        assert line.endswith(f"--labels would describe a plain model file; with a card of their own: {model}")
        assert main([*command.split(), model, "--activation", "softmax"]) == 2
        (line,) = lines_of_error(capsys)
        assert line.endswith(f"--activation would describe a plain model file; with a card of their own: {model}")


def test_flags_of_a_plain_file_are_for_that_one_of_several(
    model_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LABELMILL_MODEL_CARD", "")
    (tmp_path / "labels.txt").write_text("a\nb\nc\n")
    parser = argparse.ArgumentParser()
    add_card_flags(parser)
    hand_on(
        parser.parse_args(["--labels", str(tmp_path / "labels.txt"), "--activation", "none"]),
        [str(model_file), str(plain_onnx(tmp_path / "plain.onnx"))],
    )
    assert read_card(tmp_path / "plain.onnx").activation == "none"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["check", "noop", "--threads", "0"], "'0' is no whole number above 0"),
        (["check", "noop", "--input-size", "0"], "--input-size: '0' is no whole number above 0"),
        (["health", "--pid", "abc"], "'abc' is no whole number above 0"),
        (["bench", "noop", "--threads", "1,-2"], "'-2' is no whole number above 0"),
        (["bench", "noop", "--batches", "x"], "'x' is no whole number above 0"),
        (["bench", "noop", "--seconds", "-1"], "'-1' is no time in seconds above 0"),
        (["bench", "noop", "--seconds", "nan"], "'nan' is no time in seconds above 0"),
        (["export", "--arch", "x", "--format", "onnx", "--output", "x", "--top-k", "0"], "'0' is no whole number"),
    ],
)
def test_a_number_out_of_range_is_named(arguments: list[str], said: str, capsys: Capture) -> None:
    with pytest.raises(SystemExit) as end:
        main(arguments)

    assert end.value.code == 2
    assert said in lines_of_error(capsys)[-1]


@pytest.mark.parametrize("arguments", [[], ["bogus"], ["check"], ["bench", "a.onnx", "--bogus"]])
def test_a_wrong_command_line_gets_one_line(arguments: list[str], capsys: Capture) -> None:
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == 2
    (line,) = lines_of_error(capsys)
    assert line.startswith("labelmill-worker")
    assert line.endswith("--help")


def test_no_table_is_begun_for_a_file_that_is_not_there(capsys: Capture) -> None:
    assert main(["bench", "nofile.onnx"]) == 12
    assert capsys.readouterr() == ("", "labelmill-worker: no such model file: nofile.onnx\n")


def test_there_is_nothing_to_inspect_in_a_model_without_a_file(capsys: Capture) -> None:
    assert main(["inspect", "noop"]) == 2

    assert "noop is no file" in lines_of_error(capsys)[0]


def test_inspect_shows_labels_preprocessing_ends_opset_and_digest(tiny_files: dict[str, Path], capsys: Capture) -> None:
    assert main(["inspect", str(tiny_files["onnx"])]) == 0

    out = capsys.readouterr().out
    assert loader.digest(tiny_files["onnx"]) in out
    assert "7: class 0, class 1" in out
    assert "images uint8 [batch, 16, 16, 3]" in out
    assert "scores float [batch, 7]" in out
    assert "ai.onnx 20" in out
    assert "bilinear" in out


def test_inspect_shows_the_graph(model_file: Path, capsys: Capture) -> None:
    assert main(["inspect", "--graph", str(model_file)]) == 0

    out = capsys.readouterr().out.lower()
    assert "softmax" in out
    assert "relu" in out


def test_inspect_shows_the_code_inside_torchscript(tiny_files: dict[str, Path], capsys: Capture) -> None:
    assert main(["inspect", "--code", str(tiny_files["torchscript"])]) == 0

    assert "def forward(self" in capsys.readouterr().out


def test_onnx_carries_no_code_and_the_message_says_so(tiny_files: dict[str, Path], capsys: Capture) -> None:
    assert main(["inspect", "--code", str(tiny_files["onnx"])]) == 2

    assert "--graph" in lines_of_error(capsys)[0]


def test_a_command_that_is_no_export_imports_no_torch_for_onnx(tiny_files: dict[str, Path]) -> None:
    code = (
        "import sys; from worker.cli import main; "
        "codes = [main([command, sys.argv[1]]) for command in ('inspect', 'check')]; "
        "sys.exit(codes != [0, 0] or 'torch' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code, str(tiny_files["onnx"])], check=True, stdout=subprocess.DEVNULL)


def test_help_imports_neither_torch_nor_onnxruntime() -> None:
    code = (
        "import sys\nfrom worker.cli import main\n"
        "for command in sys.argv[1:]:\n"
        "    try:\n        main([command, '--help'])\n"
        "    except SystemExit as end:\n        assert end.code == 0\n"
        "sys.exit(bool({'torch', 'onnxruntime', 'onnx'} & set(sys.modules)))"
    )
    mine = [name for name, (module, _) in COMMANDS.items() if module.startswith("worker.commands")]
    done = subprocess.run([sys.executable, "-c", code, *mine], check=True, capture_output=True, text=True)
    assert done.stdout.count("examples:") == len(mine)


def test_a_reader_that_goes_away_is_no_error(tiny_files: dict[str, Path]) -> None:
    command = [sys.executable, "-m", "worker", "inspect", "--graph", str(tiny_files["onnx"])]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        said = process.stderr.read()
    assert b"Traceback" not in said
    assert process.returncode == 141
