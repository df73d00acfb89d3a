"""The Open Inference Protocol, version 2, for clients that speak it: health, metadata, infer.

Images are BYTES: base64 strings in JSON, or raw behind the JSON (the binary tensor extension, in which each element
has its length before it, 4 bytes little-endian).
"""

from __future__ import annotations

import base64
import binascii
import struct
from contextlib import ExitStack
from importlib.metadata import version
from typing import Any

import orjson
from flask import Blueprint, Response, request

from jobs.errors import BrokerUnavailableError
from jobs.patience import GONE
from producer.web.bodies import Bodies
from producer.web.guards import Slots
from producer.web.predict import MAX_TOP_K, check_backlog, failure
from producer.web.problems import Problem
from producer.web.replies import json_reply
from producer.web.service import Service
from producer.web.singles import Answer

__all__ = ["blueprint"]

#: Images of one call.
MAX_IMAGES = 16
#: Names the length of the JSON when raw tensors follow it.
_HEADER_LENGTH = "Inference-Header-Content-Length"
_INPUTS = [{"name": "image", "datatype": "BYTES", "shape": [-1]}]
#: Each output, and where a result has it.
_COLUMNS = {"labels": "label", "scores": "score", "indices": "index"}
_OUTPUTS: list[dict[str, Any]] = [
    {"name": "labels", "datatype": "BYTES", "shape": [-1, -1]},
    {"name": "scores", "datatype": "FP32", "shape": [-1, -1]},
    {"name": "indices", "datatype": "INT64", "shape": [-1, -1]},
]


def blueprint(service: Service, bodies: Bodies, waiting: Slots) -> Blueprint:
    """Everything below ``/v2``."""
    views = Blueprint("inference", __name__)

    @views.get("/v2")
    def server() -> Response:
        return json_reply({"name": "labelmill", "version": version("labelmill"), "extensions": ["binary_tensor_data"]})

    @views.get("/v2/health/live")
    def live() -> Response:
        return json_reply({"live": True})

    @views.get("/v2/health/ready")
    def ready() -> Response:
        try:
            serving = bool(service.fleet().serving())
        except (*GONE, BrokerUnavailableError):
            serving = False
        return json_reply({"ready": serving}, 200 if serving else 503, {} if serving else {"Retry-After": "2"})

    @views.get("/v2/models/<name>")
    def model(name: str) -> Response:
        served = service.served(name)
        versions = sorted({service.version(one.digest) for one in served})
        return json_reply(
            {"name": name, "versions": versions, "platform": "labelmill", "inputs": _INPUTS, "outputs": _OUTPUTS}
        )

    @views.get("/v2/models/<name>/ready")
    def model_ready(name: str) -> Response:
        service.served(name)
        return json_reply({"name": name, "ready": True})

    @views.post("/v2/models/<name>/infer")
    def infer(name: str) -> Response:
        served = service.served(name)[0]
        call = _Call(*_split(bodies.raw(service.settings.web_max_json)))
        check_backlog(service, served.name)
        with waiting.one():
            answers = _classify(service, served.name, call)
        return json_reply(_response(call, answers, served.name, service.version(served.digest)))

    return views


class _Call:
    """A checked request: its images and what it asks for."""

    def __init__(self, body: Any, raw: memoryview) -> None:
        if not isinstance(body, dict):
            raise Problem(400, "bad_request", "the body must be an object")
        self.id = _text(body, "id")
        self.top_k = _top_k(_object(body, "parameters").get("top_k", 5))
        self.outputs = self._outputs(body)
        self.images = self._images(body, raw)

    def _outputs(self, body: dict[str, Any]) -> list[str]:
        known = list(_COLUMNS)
        asked = body.get("outputs")
        if asked is None:
            return known
        listed = asked if isinstance(asked, list) else [None]
        names = [output.get("name") if isinstance(output, dict) else None for output in listed]
        if any(name not in known for name in names):
            raise Problem(422, "bad_output", f"outputs can be {', '.join(known)}")
        return [str(name) for name in names] or known

    def _images(self, body: dict[str, Any], raw: memoryview) -> list[bytes]:
        inputs = body.get("inputs")
        if not isinstance(inputs, list) or len(inputs) != 1 or not isinstance(inputs[0], dict):
            raise Problem(422, "bad_input", "inputs must be a list of one tensor, the images")
        tensor = inputs[0]
        if tensor.get("datatype") != "BYTES" or not isinstance(tensor.get("name"), str):
            raise Problem(422, "bad_input", "the input must have a name and datatype BYTES")
        size = _object(tensor, "parameters").get("binary_data_size")
        images = _from_json(tensor.get("data")) if size is None else _from_raw(raw, size)
        shape = tensor.get("shape")
        if shape not in ([len(images)], [len(images), 1]):
            raise Problem(422, "bad_input", f"shape is {shape!r}, but there are {len(images)} images")
        if not 1 <= len(images) <= MAX_IMAGES:
            raise Problem(422, "bad_input", f"1 to {MAX_IMAGES} images in one call; more make a job: POST /v1/jobs")
        return images


def _split(data: bytes) -> tuple[Any, memoryview]:
    """The JSON and what follows it."""
    length = request.headers.get(_HEADER_LENGTH)
    end = len(data)
    if length is not None:
        if not length.isascii() or not length.isdigit() or int(length) > len(data):
            raise Problem(400, "bad_request", f"{_HEADER_LENGTH} does not fit the body")
        end = int(length)
    try:
        return orjson.loads(data[:end]), memoryview(data)[end:]
    except orjson.JSONDecodeError as exc:
        raise Problem(400, "bad_json", f"the body is not JSON: {exc}") from None


def _from_json(data: Any) -> list[bytes]:
    flat = (
        [one[0] if isinstance(one, list) and len(one) == 1 else one for one in data] if isinstance(data, list) else []
    )
    try:
        return [base64.b64decode(one, validate=True) for one in flat]
    except (binascii.Error, TypeError, ValueError):
        raise Problem(422, "bad_input", "data must be a list of images in base64") from None


def _from_raw(raw: memoryview, size: Any) -> list[bytes]:
    if not isinstance(size, int) or size != len(raw):
        raise Problem(422, "bad_input", "binary_data_size does not fit the body")
    images, at = [], 0
    while at + 4 <= len(raw):
        (length,) = struct.unpack_from("<I", raw, at)
        images.append(bytes(raw[at + 4 : at + 4 + length]))
        at += 4 + length
    if at != len(raw):
        raise Problem(422, "bad_input", "the binary tensor is cut off")
    return images


def _classify(service: Service, model: str, call: _Call) -> list[dict[str, Any]]:
    """The result of each image, in order. Raises :class:`Problem` for the first one that has none."""
    with ExitStack() as stack:
        waiters = [stack.enter_context(service.singles.expect()) for _ in call.images]
        for number, (waiter, image) in enumerate(zip(waiters, call.images, strict=True)):
            service.singles.send(waiter.id, f"image-{number}", image, model=model, top_k=call.top_k)
        return [_result(waiter.wait(service.settings.web_predict_timeout_s), i) for i, waiter in enumerate(waiters)]


def _result(answer: Answer, number: int) -> dict[str, Any]:
    if answer.state == "queued":
        raise Problem(504, "timeout", f"no answer in time for image {number}", more={"task_id": answer.id})
    error = failure(answer)
    if error:
        raise Problem(error.status, error.code, f"image {number}: {error.message}")
    return answer.result or {}


def _response(call: _Call, results: list[dict[str, Any]], name: str, model_version: str) -> dict[str, Any]:
    width = len(results[0]["labels"])
    outputs = [
        {
            **output,
            "shape": [len(results), width],
            "data": [one[_COLUMNS[output["name"]]] for result in results for one in result["labels"]],
        }
        for output in _OUTPUTS
        if output["name"] in call.outputs
    ]
    identity = {"id": call.id} if call.id else {}
    return {"model_name": name, "model_version": model_version, **identity, "outputs": outputs}


def _object(body: dict[str, Any], key: str) -> dict[str, Any]:
    value = body.get(key, {})
    if not isinstance(value, dict):
        raise Problem(422, "bad_request", f"{key} must be an object")
    return value


def _text(body: dict[str, Any], key: str) -> str:
    value = body.get(key, "")
    if not isinstance(value, str):
        raise Problem(422, "bad_request", f"{key} must be text")
    return value


def _top_k(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= MAX_TOP_K:
        raise Problem(422, "bad_top_k", f"top_k must be 1 to {MAX_TOP_K}")
    return value
