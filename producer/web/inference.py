"""The Open Inference Protocol, version 2, for clients that speak it: health, metadata, infer."""

from __future__ import annotations

import time
from contextlib import ExitStack
from importlib.metadata import version
from typing import Any

from flask import Blueprint, Response, request

from jobs.errors import BrokerUnavailableError
from jobs.patience import GONE
from producer.web.bodies import Bodies
from producer.web.guards import Slots
from producer.web.predict import check_backlog, failure
from producer.web.problems import Problem
from producer.web.replies import json_reply
from producer.web.service import Service
from producer.web.singles import Answer
from producer.web.tensors import INPUTS, OUTPUTS, Call, Reply, reply, split

__all__ = ["blueprint"]

#: Names the length of the JSON when raw tensors follow it.
_HEADER_LENGTH = "Inference-Header-Content-Length"


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
            {"name": name, "versions": versions, "platform": "labelmill", "inputs": INPUTS, "outputs": OUTPUTS}
        )

    @views.get("/v2/models/<name>/ready")
    def model_ready(name: str) -> Response:
        service.served(name)
        return json_reply({"name": name, "ready": True})

    @views.post("/v2/models/<name>/infer")
    def infer(name: str) -> Response:
        served = service.served(name)[0]
        data = bodies.raw(service.settings.web_max_json)
        call = Call(*split(data, request.headers.get(_HEADER_LENGTH)))
        check_backlog(service, served.name)
        with waiting.one():
            results = _classify(service, served.name, call)
        return _sent(reply(call, results, name=served.name, version=service.version(served.digest)))

    return views


def _sent(answer: Reply) -> Response:
    if answer.json_bytes is None:
        return Response(answer.body, content_type="application/json")
    headers = {_HEADER_LENGTH: str(answer.json_bytes)}
    return Response(answer.body, content_type="application/octet-stream", headers=headers)


def _classify(service: Service, model: str, call: Call) -> list[dict[str, Any]]:
    """The result of each image, in order, in one wait for all. Raises :class:`Problem` for the first that has none."""
    deadline = time.monotonic() + service.settings.web_predict_timeout_s
    with ExitStack() as stack:
        waiters = [stack.enter_context(service.singles.expect()) for _ in call.images]
        for number, (waiter, image) in enumerate(zip(waiters, call.images, strict=True)):
            service.singles.send(waiter.id, f"image-{number}", image, model=model, top_k=call.top_k)
        return [_result(waiter.wait(deadline - time.monotonic()), i) for i, waiter in enumerate(waiters)]


def _result(answer: Answer, number: int) -> dict[str, Any]:
    if answer.state == "queued":
        more = {"task_id": answer.id, "poll": f"/v1/tasks/{answer.id}"}
        raise Problem(504, "timeout", f"no answer in time for image {number}", more=more)
    error = failure(answer)
    if error:
        raise Problem(error.status, error.code, f"image {number}: {error.message}")
    return answer.result or {}
