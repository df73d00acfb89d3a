"""The Open Inference Protocol: health, metadata and infer, with images in base64 and as raw tensors."""

from __future__ import annotations

import base64
import json
import struct
from collections.abc import Iterator
from typing import Any

import pytest
import requests

from tests.support.gateway import GatewayProcess, gateway
from tests.support.servers import RedisServer, eventually, worker_process

IMAGES = [b"first image", b"second image", b"third image"]


@pytest.fixture(scope="module")
def web() -> Iterator[GatewayProcess]:
    """A gateway with its embedded pair."""
    with gateway() as process:
        yield process


def tensor(images: list[bytes], **changes: Any) -> dict[str, Any]:
    """The input tensor of images."""
    data = [base64.b64encode(image).decode() for image in images]
    return {"name": "image", "datatype": "BYTES", "shape": [len(images)], "data": data, **changes}


def infer(web: GatewayProcess, body: dict[str, Any]) -> requests.Response:
    """One call."""
    return web.post("/v2/models/noop/infer", json=body)


def outputs(answer: requests.Response) -> dict[str, dict[str, Any]]:
    """The outputs of an answer by name."""
    assert answer.status_code == 200, answer.text
    return {output["name"]: output for output in answer.json()["outputs"]}


def test_health_and_metadata(web: GatewayProcess) -> None:
    assert web.get("/v2/health/live").json() == {"live": True}
    assert web.get("/v2/health/ready").json() == {"ready": True}
    assert web.get("/v2/models/noop/ready").json() == {"name": "noop", "ready": True}
    assert web.get("/v2").json()["name"] == "labelmill"
    model = web.get("/v2/models/noop").json()
    assert [tensor["name"] for tensor in model["inputs"]] == ["image"]
    assert [tensor["name"] for tensor in model["outputs"]] == ["labels", "scores", "indices"]
    assert web.get("/v2/models/nobody").status_code == 404
    assert web.get("/v2/models/nobody/ready").status_code == 404


def test_images_in_base64_get_a_row_of_labels_each(web: GatewayProcess) -> None:
    answer = infer(web, {"id": "mine", "inputs": [tensor(IMAGES)], "parameters": {"top_k": 2}})
    found = outputs(answer)
    assert answer.json()["id"] == "mine"
    assert found["labels"]["shape"] == [3, 2]
    assert found["labels"]["data"] == ["noop-0", "noop-1"] * 3
    assert found["scores"]["data"] == [0.5, 0.25] * 3
    assert found["indices"]["data"] == [0, 1] * 3


def test_only_the_outputs_that_are_asked_for_come(web: GatewayProcess) -> None:
    assert set(outputs(infer(web, {"inputs": [tensor(IMAGES)], "outputs": [{"name": "scores"}]}))) == {"scores"}


def test_raw_tensors_follow_the_json(web: GatewayProcess) -> None:
    raw = b"".join(struct.pack("<I", len(image)) + image for image in IMAGES)
    declared = tensor(IMAGES, parameters={"binary_data_size": len(raw)})
    del declared["data"]
    head = json.dumps({"inputs": [declared]}).encode()
    headers = {"Inference-Header-Content-Length": str(len(head)), "Content-Type": "application/octet-stream"}
    answer = web.post("/v2/models/noop/infer", data=head + raw, headers=headers)
    assert outputs(answer)["labels"]["shape"] == [3, 5]
    cut = web.post("/v2/models/noop/infer", data=head + raw[:-1], headers=headers)
    assert (cut.status_code, cut.json()["code"]) == (422, "bad_input")


@pytest.mark.parametrize(
    "body",
    [
        {"parameters": {"binary_data_output": True, "top_k": 2}},
        {
            "parameters": {"top_k": 2},
            "outputs": [{"name": n, "parameters": {"binary_data": True}} for n in ("labels", "scores", "indices")],
        },
    ],
    ids=["all", "each"],
)
def test_outputs_come_raw_where_that_is_asked_for(web: GatewayProcess, body: dict[str, Any]) -> None:
    answer = infer(web, {"inputs": [tensor(IMAGES[:2])], **body})
    end = int(answer.headers["Inference-Header-Content-Length"])
    labels, scores, indices = json.loads(answer.content[:end])["outputs"]
    sizes = [output["parameters"]["binary_data_size"] for output in (labels, scores, indices)]
    assert [output["shape"] for output in (labels, scores, indices)] == [[2, 2]] * 3
    assert "data" not in labels
    raw = answer.content[end:]
    assert len(raw) == sum(sizes)
    assert raw[: sizes[0]] == (b"\6\0\0\0noop-0" + b"\6\0\0\0noop-1") * 2
    assert struct.unpack("<4f", raw[sizes[0] : -sizes[2]]) == (0.5, 0.25) * 2
    assert struct.unpack("<4q", raw[-sizes[2] :]) == (0, 1) * 2


def test_errors_have_the_protocol_s_own_field_too(web: GatewayProcess) -> None:
    problem = web.get("/v2/models/nobody").json()
    assert problem["error"] == problem["detail"] == "no worker serves 'nobody'; served are: noop"
    headers = {"Inference-Header-Content-Length": "9" * 5000}
    assert web.post("/v2/models/noop/infer", data=b"{}", headers=headers).status_code == 400


def test_all_images_of_a_call_have_one_time_and_what_is_late_can_be_polled(redis: RedisServer) -> None:
    patience = {"LABELMILL_WEB_PREDICT_TIMEOUT_S": "0.5"}
    with worker_process(redis) as worker, gateway(redis=redis, env=patience) as web:
        worker.pause()
        answer = infer(web, {"inputs": [tensor(IMAGES)]})
        assert (answer.status_code, answer.json()["code"]) == (504, "timeout")
        assert web.get(answer.json()["poll"]).json()["state"] == "queued"
        worker.resume()
        eventually(lambda: "result" in web.get(answer.json()["poll"]).json(), what="the answer is there")


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"inputs": []},
        {"inputs": [tensor(IMAGES), tensor(IMAGES)]},
        {"inputs": [tensor(IMAGES, shape=[2])]},
        {"inputs": [tensor(IMAGES, datatype="FP32")]},
        {"inputs": [tensor(IMAGES, data=["not base64!"])]},
        {"inputs": [tensor(IMAGES * 6)]},
        {"inputs": [tensor(IMAGES)], "outputs": [{"name": "logits"}]},
        {"inputs": [tensor(IMAGES)], "outputs": [{"name": ["labels"]}]},
        {"inputs": [tensor(IMAGES)], "outputs": [{"name": "labels", "parameters": {"binary_data": 1}}]},
        {"inputs": [tensor(IMAGES)], "parameters": {"top_k": 0}},
    ],
)
def test_a_request_of_another_form_is_refused(web: GatewayProcess, body: dict[str, Any]) -> None:
    assert infer(web, body).status_code == 422
