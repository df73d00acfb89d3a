"""``labelmill classify`` as a newcomer meets it: a process of its own, real signals, nothing left behind."""

from __future__ import annotations

import os
import pty
import re
import select
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import orjson
import pytest
from PIL import Image

from producer.commands.classify import EXIT_FAILED_ITEMS
from tests.support.servers import RedisServer, eventually, redis_server, worker_process

COMMAND = [sys.executable, "-m", "producer", "classify"]
#: Seconds that one command may take on a machine with other work to do.
LIMIT_S = 120


@pytest.fixture
def env() -> Iterator[dict[str, str]]:
    """A temporary folder of this test's own, so that what is left behind is seen."""
    with tempfile.TemporaryDirectory(prefix="lm-test-") as folder:
        yield {k: v for k, v in os.environ.items() if not k.startswith("LABELMILL_")} | {"TMPDIR": folder}


@pytest.fixture
def redis() -> Iterator[RedisServer]:
    with redis_server() as server:
        yield server


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    folder = tmp_path / "pictures"
    folder.mkdir()
    Image.effect_noise((64, 48), 80).save(folder / "first.jpg")
    for i in range(2, 11):
        os.link(folder / "first.jpg", folder / f"{i}.jpg")
    (folder / "broken.jpg").write_bytes((folder / "first.jpg").read_bytes()[:300])
    return folder


def classify(*args: str | Path, env: dict[str, str]) -> subprocess.CompletedProcess[str]:
    command = [*COMMAND, *map(str, args)]
    return subprocess.run(command, env=env, capture_output=True, text=True, timeout=LIMIT_S, check=False)


def pids_of(what: str, env: dict[str, str]) -> list[int]:
    return [pid for pid, line in _started(env).items() if what in line]


def started_by(env: dict[str, str]) -> list[str]:
    """Command lines of living processes that were started with this environment's temporary folder, or in it."""
    return list(_started(env).values())


def _started(env: dict[str, str]) -> dict[int, str]:
    found = {}
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit() and folder.name != str(os.getpid()):
            try:
                if f"TMPDIR={env['TMPDIR']}".encode() in (folder / "environ").read_bytes():
                    line = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode()
                    found[int(folder.name)] = line
            except OSError:
                continue  # it ended meanwhile
    return found


def nothing_is_left(env: dict[str, str]) -> bool:
    return not started_by(env) and not list(Path(env["TMPDIR"]).iterdir())


def test_a_folder_becomes_one_line_an_image_with_nothing_left_behind(pictures: Path, env: dict[str, str]) -> None:
    output = pictures.parent / "out.jsonl"
    done = classify(pictures, "--model", "efficientnet-lite0", "--output", output, "--table", env=env)
    assert done.returncode == 0, done.stderr
    lines = [orjson.loads(line) for line in output.read_bytes().splitlines()]
    assert sorted(line["custom_id"] for line in lines) == sorted(path.name for path in pictures.iterdir())
    failed = [line for line in lines if line["status"] == "failed"]
    assert [line["custom_id"] for line in failed] == ["broken.jpg"]
    assert failed[0]["error"]["code"] == "corrupt_image"
    good = next(line for line in lines if line["status"] == "succeeded")
    assert len(good["labels"]) == 5
    assert re.fullmatch(r"sha256:[0-9a-f]{64}", good["model"]["digest"])
    assert "broken.jpg" in done.stdout
    assert "11/11, 1 failed" in done.stderr
    assert nothing_is_left(env)


def test_a_temporary_folder_with_a_long_path_is_no_hindrance(
    pictures: Path, env: dict[str, str], tmp_path: Path
) -> None:
    long = tmp_path / ("long" * 25)
    long.mkdir()
    done = classify(pictures, "--model", "noop", env=env | {"TMPDIR": str(long)})
    assert done.returncode == 0, done.stderr


def test_strict_says_by_its_exit_code_that_an_item_failed(pictures: Path, env: dict[str, str]) -> None:
    done = classify(pictures, "--model", "efficientnet-lite0", "--format", "csv", "--strict", env=env)
    assert done.returncode == EXIT_FAILED_ITEMS
    assert len(done.stdout.splitlines()) == 12


@pytest.mark.parametrize(
    ("args", "code", "words"),
    [
        (["missing"], 3, "no such file or folder: missing"),
        (["empty"], 3, "no images found in empty"),
        (["pictures", "--model", "nosuch"], 12, "no model 'nosuch'"),
        (["pictures", "--model", "broken.onnx"], 13, "broken.onnx"),
        (["pictures", "--broker", "redis://127.0.0.1:1/0"], 5, "is it running?"),
        (["pictures", "--broker", "nonsense://x"], 2, "must begin with"),
        (["pictures", "--model", "noop", "--output", "empty"], 2, "it is a folder"),
        (["pictures", "--broker", "redis://127.0.0.1:1/0", "--model", "./m.onnx"], 5, "is it running?"),
        (["pictures", "--model", "noop", "--output", "pictures/first.jpg/x"], 2, "cannot write"),
        (["pictures", "--top-k", "0"], 2, "--top-k"),
        (["pictures", "--model", "noop", "--format", "table", "--nonsense"], 2, "--nonsense"),
    ],
)
def test_bad_input_is_one_clear_line_with_its_own_exit_code(
    args: list[str], code: int, words: str, pictures: Path, env: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(pictures.parent)
    Path("empty").mkdir()
    Path("broken.onnx").write_bytes(b"no model")
    done = classify(*args, env=env)
    assert (done.returncode, done.stdout) == (code, "")
    assert words in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr
    assert nothing_is_left(env)


def test_a_model_that_nobody_serves_is_named_with_what_to_do(
    redis: RedisServer, pictures: Path, env: dict[str, str]
) -> None:
    with worker_process(redis, model="noop", concurrency=1):
        done = classify(pictures, "--broker", redis.broker_url, "--model", "other", env=env)
    assert done.returncode == 6
    assert "served there: noop" in done.stderr
    assert "labelmill-worker serve --model other" in done.stderr


def test_a_broker_that_is_named_is_used_with_its_workers(
    redis: RedisServer, pictures: Path, env: dict[str, str]
) -> None:
    with worker_process(redis, model="noop", concurrency=1, file_roots=[pictures]):
        done = classify(
            pictures, "--format", "jsonl", "--model", "noop", env=env | {"LABELMILL_BROKER_URL": redis.broker_url}
        )
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.splitlines()) == 11
    assert len(redis.ledger.jobs()) == 1


@pytest.fixture
def endless(tmp_path: Path) -> Path:
    """More work than a test waits for."""
    folder = tmp_path / "endless"
    folder.mkdir()
    Image.effect_noise((320, 240), 80).save(folder / "0.jpg")
    for i in range(1, 20_000):
        os.link(folder / "0.jpg", folder / f"{i}.jpg")
    return folder


@pytest.mark.parametrize("numbers", [[signal.SIGINT], [signal.SIGTERM], [signal.SIGINT, signal.SIGTERM]])
def test_whatever_ends_it_at_its_start_nothing_stays(
    numbers: list[signal.Signals], pictures: Path, env: dict[str, str]
) -> None:
    command = [*COMMAND, str(pictures), "--model", "efficientnet-lite0"]
    with subprocess.Popen(command, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        eventually(lambda: any("worker serve" in line for line in started_by(env)), LIMIT_S, what="the worker starts")
        for number in numbers:
            process.send_signal(number)
        assert process.wait(LIMIT_S) == 130
    eventually(lambda: nothing_is_left(env), LIMIT_S, what="nothing is left")


#: Strikes in a hook of its Nth fork, where Python ignores what is raised. The first is for Redis, then for the worker.
STRUCK = """
import os, signal, sys

forks = 0

def strike():
    global forks
    forks += 1
    if forks == {nth}:
        signal.raise_signal(signal.SIGINT)

os.register_at_fork(after_in_parent=strike)
from producer.cli import entry
entry()
"""


@pytest.mark.parametrize("nth", [1, 2])
def test_an_interruption_in_the_middle_of_a_fork_is_none_too_few(nth: int, pictures: Path, env: dict[str, str]) -> None:
    command = [sys.executable, "-c", STRUCK.format(nth=nth), "classify", str(pictures), "--model", "noop"]
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=LIMIT_S, check=False)
    assert (done.returncode, done.stdout) == (130, "")
    assert done.stderr == "labelmill: interrupted\n"
    assert nothing_is_left(env)


#: What a script runs beside itself ignores Ctrl-C.
BESIDE = ["sh", "-c", '"$@" & wait "$!"', "sh"]


@pytest.mark.parametrize("beside", [[], BESIDE], ids=["", "beside a script"])
def test_an_embedded_worker_that_dies_ends_the_command_with_a_reason(
    beside: list[str], endless: Path, env: dict[str, str]
) -> None:
    log = endless.parent / "stderr"
    command = [*beside, *COMMAND, str(endless), "--model", "efficientnet-lite0", "--format", "jsonl"]
    with (
        log.open("wb") as stderr,
        subprocess.Popen(command, env=env, stdout=subprocess.DEVNULL, stderr=stderr) as process,
    ):
        eventually(lambda: re.search(r"[1-9]\d*/\d+", log.read_text()), LIMIT_S, what="some images are done")
        for pid in pids_of("worker serve", env):
            os.kill(pid, signal.SIGKILL)
        assert process.wait(LIMIT_S) == 70
    assert log.read_text().splitlines()[-1].startswith("labelmill: the embedded worker has ended")
    eventually(lambda: nothing_is_left(env), LIMIT_S, what="nothing is left")


@pytest.mark.usefixtures("cifar10_cnn")
def test_thousands_of_named_files_and_names_with_a_colon_are_read(pictures: Path, env: dict[str, str]) -> None:
    folder = pictures.parent / "a:b"
    folder.mkdir()
    names = [folder / f"{'long' * 20}-{i}.jpg" for i in range(1500)]
    for name in names:
        os.link(pictures / "first.jpg", name)
    done = classify(*names, "--model", "cifar10-cnn", "--format", "csv", "--strict", env=env)
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.splitlines()) == 1501


def test_a_pipe_is_written_to_and_stays_a_pipe(pictures: Path, env: dict[str, str], tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    reader = subprocess.Popen(["cat", str(pipe)], stdout=subprocess.PIPE)
    assert classify(pictures, "--model", "noop", "--format", "jsonl", "--output", pipe, env=env).returncode == 0
    assert len(reader.communicate(timeout=LIMIT_S)[0].splitlines()) == 11
    assert pipe.is_fifo()


def test_a_full_disk_is_one_line(pictures: Path, env: dict[str, str]) -> None:
    command = [*COMMAND, str(pictures), "--model", "noop", "--format", "jsonl"]
    with open("/dev/full", "wb") as full:
        done = subprocess.run(command, env=env, stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert done.returncode == 74
    assert "Traceback" not in done.stderr
    assert "No space left" in done.stderr.splitlines()[-1]

    done = classify(pictures, "--model", "noop", "--format", "jsonl", "--output", "/dev/full", env=env)
    assert done.returncode == 74
    assert done.stderr.splitlines()[-1] == "labelmill: [Errno 28] No space left on device: '/dev/full'"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_whatever_ends_it_in_the_middle_no_process_stays(
    number: signal.Signals, endless: Path, env: dict[str, str]
) -> None:
    command = [*COMMAND, str(endless), "--model", "efficientnet-lite0", "--output", str(endless.parent / "out.jsonl")]
    log = endless.parent / "stderr"
    with log.open("wb") as stderr, subprocess.Popen(command, env=env, stderr=stderr) as process:
        eventually(lambda: re.search(r"[1-9]\d*/\d+", log.read_text()), LIMIT_S, what="some images are done")
        process.send_signal(number)
        process.wait(LIMIT_S)
    eventually(lambda: not started_by(env), LIMIT_S, what="all processes ended")
    assert not (endless.parent / "out.jsonl").exists()
    if number != signal.SIGKILL:  # which leaves nobody to clean up its folder
        assert process.returncode == 130
        assert log.read_text().splitlines()[-1] == "labelmill: interrupted"
        assert nothing_is_left(env)


def test_two_thousand_photographs_are_two_thousand_lines(
    redis: RedisServer, endless: Path, env: dict[str, str]
) -> None:
    chosen = endless.parent / "chosen"
    chosen.mkdir()
    for i in range(2000):
        os.link(endless / "0.jpg", chosen / f"{i:04}.jpg")
    with worker_process(redis, model="efficientnet-lite0", concurrency=2, file_roots=[chosen]) as worker:
        done = classify(chosen, "--format", "jsonl", "--broker", redis.broker_url, env=env)
        loads = worker.log().count("is warm in process")
    assert done.returncode == 0, done.stderr
    ids = [orjson.loads(line)["custom_id"] for line in done.stdout.splitlines()]
    assert sorted(ids) == [f"{i:04}.jpg" for i in range(2000)]
    assert loads == 2


def peak_memory_mb(command: list[str], env: dict[str, str]) -> float:
    """Peak resident memory of a process by itself, from the kernel's own accounting."""
    with subprocess.Popen(command, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE) as process:
        assert process.stderr
        said = process.stderr.read().decode()
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    assert process.returncode == 0, said
    return usage.ru_maxrss / 1024


def test_the_producers_memory_does_not_grow_with_the_number_of_images(
    redis: RedisServer, endless: Path, env: dict[str, str]
) -> None:
    few = endless.parent / "few"
    few.mkdir()
    for i in range(200):
        os.link(endless / "0.jpg", few / f"{i}.jpg")
    command = [*COMMAND, "--model", "noop", "--format", "jsonl", "--broker", redis.broker_url]
    with worker_process(redis, model="noop", concurrency=1):
        small, large = (peak_memory_mb([*command, str(folder)], env) for folder in (few, endless))
    assert large - small < 25, f"{small:.0f} MB for 200 images, {large:.0f} MB for 20,000"


def test_on_a_terminal_there_is_a_bar_and_a_table(pictures: Path, env: dict[str, str]) -> None:
    screen, terminal = pty.openpty()
    command = [*COMMAND, str(pictures), "--model", "efficientnet-lite0"]
    with subprocess.Popen(
        command, env=env | {"TERM": "xterm-256color", "COLUMNS": "120"}, stdout=terminal, stderr=terminal
    ) as process:
        os.close(terminal)
        shown = _read_all(screen)
        process.wait(LIMIT_S)
    os.close(screen)
    assert process.returncode == 0, shown
    assert "━" in shown, "no bar"
    assert re.search(r"broken\.jpg.*corrupt_image", shown)
    assert "11 images, 1 failed, 10 succeeded" in shown


def _read_all(screen: int) -> str:
    parts, deadline = [], time.monotonic() + LIMIT_S
    while time.monotonic() < deadline:
        if select.select([screen], [], [], 1.0)[0]:
            try:
                part = os.read(screen, 65536)
            except OSError:  # Linux's end of a pseudo-terminal
                break
            if not part:
                break
            parts.append(part)
    return b"".join(parts).decode(errors="replace")
