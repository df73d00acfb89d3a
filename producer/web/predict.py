"""The classic endpoint: one picture in, its name out, through the interactive lane. And what became of a call."""

from __future__ import annotations

import time
from typing import Any

from flask import Blueprint, Response

from producer.web.bodies import Bodies
from producer.web.guards import Slots
from producer.web.names import clean_name
from producer.web.problems import Problem, item_status
from producer.web.queries import digits
from producer.web.replies import json_reply
from producer.web.service import Service
from producer.web.singles import Answer

__all__ = ["MAX_TOP_K", "blueprint", "check_backlog", "failure"]

#: Labels that one answer carries at the most.
MAX_TOP_K = 1000


def blueprint(service: Service, bodies: Bodies, waiting: Slots) -> Blueprint:
    """``POST /predict`` and ``GET /v1/tasks/ID``."""
    views = Blueprint("predict", __name__)
    settings = service.settings

    @views.post("/predict")
    def predict() -> Response:
        started = time.perf_counter()
        name, data, fields = bodies.picture(settings.web_predict_bytes)
        model = service.served(fields.get("model"))[0].name
        check_backlog(service, model)
        received = time.perf_counter()
        with waiting.one():
            answer = service.singles.classify(
                clean_name(name),
                data,
                model=model,
                top_k=top_k_of(fields.get("top_k")),
                timeout_s=settings.web_predict_timeout_s,
            )
        timing = {
            "upload_ms": round((received - started) * 1000, 2),
            "answer_ms": round((time.perf_counter() - received) * 1000, 2),
        }
        return json_reply(classic(answer, timing))

    @views.get("/v1/tasks/<task_id>")
    def task(task_id: str) -> Response:
        found = service.singles.find(task_id)
        if found is None:
            raise Problem(404, "task_not_found", "there is no such call, or it was too long ago")
        return json_reply(found.as_dict())

    return views


def classic(answer: Answer, timing: dict[str, float]) -> dict[str, Any]:
    """An answer in the classic form. Raises :class:`Problem` where it is none."""
    if answer.state == "queued":
        more = {"task_id": answer.id, "poll": f"/v1/tasks/{answer.id}"}
        raise Problem(504, "timeout", "no answer in time; ask for the task later", more=more)
    error = failure(answer)
    if error or not answer.result:
        raise error or Problem(500, "internal_error", "an answer without a result")
    labels = answer.result["labels"]
    return {
        "object_name": labels[0]["label"],
        "labels": labels,
        "model": answer.result["model"],
        "task_id": answer.id,
        "timing": timing,
    }


def failure(answer: Answer) -> Problem | None:
    """The problem of a failed answer."""
    error = answer.error or (answer.result or {}).get("error")
    if not error:
        return None
    return Problem(item_status(error["code"]), error["code"], error["message"])


def check_backlog(service: Service, model: str) -> None:
    """Raises :class:`Problem` (503) where so many calls wait for the model that one more would wait in vain."""
    if service.singles.backlog(model) > service.settings.web_backlog:
        raise Problem(503, "backlog", f"too many calls wait for {model}", retry_after=2)


def top_k_of(text: str | None) -> int:
    """The number of labels; raises :class:`Problem` where it is none."""
    number = 5 if text is None else digits(text)
    if number is None or not 1 <= number <= MAX_TOP_K:
        raise Problem(422, "bad_top_k", f"top_k must be 1 to {MAX_TOP_K}")
    return number
