"""Model files at the door of a real worker: those that prove themselves serve, the others end it with their code."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from PIL import Image

from producer.client import Labelmill
from producer.sources import Files
from tests.support.servers import ROOT, RedisServer, worker_process
from worker.decode import decode
from worker.export.export import export_classifier
from worker.export.prepare import prepare
from worker.export.zoo import architecture
from worker.models import loader
from worker.models.card import ModelCard, Preprocessing


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """cifar10-cnn as ONNX."""
    return prepare("cifar10-cnn", model_dir=tmp_path_factory.mktemp("models"))


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    folder = tmp_path / "pictures"
    folder.mkdir()
    for name, colour in (("red", (255, 0, 0)), ("blue", (0, 0, 255))):
        Image.new("RGB", (32, 32), colour).save(folder / f"{name}.png")
    return folder


def tampered(model: Path, target: Path) -> Path:
    """The same file with one weight tensor one per cent larger."""
    changed = onnx.load(model)
    weights = next(tensor for tensor in changed.graph.initializer if len(tensor.dims) == 4 and tensor.dims[0] > 3)
    values = onnx.numpy_helper.to_array(weights) * np.float32(1.01)
    weights.CopyFrom(onnx.numpy_helper.from_array(values, weights.name))
    onnx.save_model(changed, target)
    return target


def cut_short(model: Path, target: Path) -> Path:
    target.write_bytes(model.read_bytes()[:-1000])
    return target


def fewer_labels(model: Path, target: Path) -> Path:
    changed = onnx.load(model)
    (entry,) = changed.metadata_props
    entry.value = entry.value.replace('"airplane", ', "")
    onnx.save_model(changed, target)
    return target


@pytest.mark.parametrize(
    ("damage", "code", "said"),
    [(tampered, 11, "golden sample"), (cut_short, 13, "cut short"), (fewer_labels, 14, "9 labels")],
    ids=lambda value: getattr(value, "__name__", None),
)
@pytest.mark.parametrize("pool", ["prefork", "solo", "threads"])
def test_a_file_that_is_not_what_it_was_never_serves(
    damage: object, code: int, said: str, pool: str, model: Path, tmp_path: Path, redis: RedisServer
) -> None:
    assert callable(damage)
    bad = damage(model, tmp_path / "cifar10-cnn.onnx")

    with worker_process(redis, model=str(bad), pool=pool, concurrency=1, wait=False) as worker:
        assert worker.wait() == code
        assert said in worker.log()
        assert "Traceback" not in worker.log()


def test_a_plain_file_with_a_side_car_is_served(pictures: Path, tmp_path: Path, redis: RedisServer) -> None:
    plain = channel_means(tmp_path / "colours.onnx")
    (tmp_path / "colours.onnx.json").write_text(
        '{"labels": ["red", "green", "blue"], "preprocessing": {"resize": 8, "crop": [8, 8]}}'
    )

    with worker_process(redis, model=str(plain), concurrency=1, file_roots=[pictures]):
        job = Labelmill(settings=redis.settings).submit(Files([pictures]), model="colours")
        found = {result.custom_id: result.labels[0]["label"] for result in job.results() if result.labels}

    assert found == {"red.png": "red", "blue.png": "blue"}


def test_a_torch_export_file_serves_what_onnx_serves_with_as_many_labels_as_its_card_says(
    model: Path, pictures: Path, tmp_path: Path, redis: RedisServer
) -> None:
    network, card = architecture("cifar10-cnn")
    path = tmp_path / "cifar10-cnn.pt2"
    export_classifier(network, replace(card, top_k=2), path, file_format="torch_export")
    decoded = np.stack([decode(file.read_bytes(), card.preprocessing) for file in sorted(pictures.iterdir())])
    expected = [card.labels[index] for index in loader.load(model).predict(decoded).argmax(axis=1)]

    with worker_process(redis, model=str(path), concurrency=1, file_roots=[pictures]):
        client = Labelmill(settings=redis.settings)
        job = client.submit(Files([pictures]), model="cifar10-cnn", digest=loader.digest(path), top_k=1)
        found = {result.custom_id: result.labels[0]["label"] for result in job.results() if result.labels}
        calls = "[classify.delay('red.png', model='cifar10-cnn', **more).get(60) for more in ({}, {'top_k': 4})]"
        env = os.environ | {"LABELMILL_BROKER_URL": redis.broker_url}
        script = f"from tasks import classify; print(*(len(answer['labels']) for answer in {calls}))"
        command = [sys.executable, "-c", script]
        counts = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, check=True).stdout

    assert found == dict(zip(("blue.png", "red.png"), expected, strict=True))
    assert counts == "2 4\n"


def weights_changed(path: Path) -> None:
    """One byte of a mantissa in every 64 of the largest stored tensor."""
    with zipfile.ZipFile(path) as archive:
        entries = {name: bytearray(archive.read(name)) for name in archive.namelist()}
    largest = max(entries, key=lambda name: len(entries[name]))
    for position in range(2, len(entries[largest]), 64):
        entries[largest][position] ^= 0x40
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in entries.items():
            archive.writestr(name, bytes(data))


@pytest.mark.parametrize("file_format", ["torchscript", "torch_export"])
def test_changed_weights_are_refused_by_the_other_two_runtimes(
    file_format: str, tmp_path: Path, redis: RedisServer
) -> None:
    path = prepare("cifar10-cnn", file_format=file_format, model_dir=tmp_path)
    weights_changed(path)

    with worker_process(redis, model=str(path), concurrency=1, wait=False) as worker:
        assert worker.wait() == 11
        assert "answers its golden sample differently" in worker.log()
        assert "Traceback" not in worker.log()


def test_a_plain_file_with_flags_is_served(pictures: Path, tmp_path: Path, redis: RedisServer) -> None:
    plain = channel_means(tmp_path / "colours.onnx")
    card = ModelCard(
        name="plain",
        labels=("red", "green", "blue"),
        preprocessing=Preprocessing(resize=8, crop=(8, 8)),
        input="float32_nchw",
        output="logits",
    )
    env = {"LABELMILL_MODEL_CARD": card.to_json()}

    with worker_process(redis, model=str(plain), concurrency=1, file_roots=[pictures], env=env):
        job = Labelmill(settings=redis.settings).submit(Files([pictures]), model="colours")
        found = {result.custom_id: result.labels[0]["label"] for result in job.results() if result.labels}

    assert found == {"red.png": "red", "blue.png": "blue"}


def test_serve_takes_the_flags(tmp_path: Path, redis: RedisServer) -> None:
    """A wrong number of labels shows that the flags reached the process that loads."""
    plain = channel_means(tmp_path / "colours.onnx")
    (tmp_path / "labels.txt").write_text("red\ngreen\n")
    command = [sys.executable, "-m", "worker", "serve", "--model", str(plain), "--concurrency", "1"]
    command += ["--labels", str(tmp_path / "labels.txt"), "--input-size", "8", "--broker", redis.broker_url]

    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, env=dict(os.environ))

    assert done.returncode == 14
    assert "3 scores an image but the card has 2 labels" in done.stderr + done.stdout


def channel_means(path: Path) -> Path:
    """A plain classifier: the brightest of three channels wins."""
    ends = [
        onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, shape)
        for name, shape in (("x", ["batch", 3, 8, 8]), ("logits", ["batch", 3]))
    ]
    node = onnx.helper.make_node("ReduceMean", ["x"], ["logits"], axes=[2, 3], keepdims=0)
    graph = onnx.helper.make_graph([node], "plain", ends[:1], ends[1:])
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)])
    model.ir_version = 8
    path.write_bytes(model.SerializeToString())
    return path
