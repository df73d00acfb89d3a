"""Errors as they leave the gateway: RFC 9457 problem details with our codes.

{"type": "urn:labelmill:error:job_not_found", "title": "Not Found", "status": 404, "detail": "...", "code": "..."}
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

import orjson
from flask import Flask, Response, request
from werkzeug.exceptions import HTTPException

from jobs.errors import ItemError, JobError, LabelmillError, ModelNotServedError, SenderError, TooLargeError
from jobs.patience import GONE

__all__ = ["Problem", "install", "item_status", "problem_of", "render"]

log = logging.getLogger(__name__)

#: Seconds after which to come again, where nothing better is known.
RETRY_AFTER_S = 2
#: Codes of what HTTP itself finds wrong.
_CODES = {
    400: "bad_request",
    404: "not_found",
    405: "method_not_allowed",
    408: "request_timeout",
    413: "too_large",
    415: "unsupported_media_type",
    416: "bad_range",
}


class Problem(SenderError):
    """The request cannot be carried out as it stands."""

    def __init__(
        self,
        status: int,
        code: str,
        message: str,
        *,
        retry_after: int | None = None,
        more: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.code = code  # type: ignore[misc]
        self.retry_after = retry_after if retry_after is not None or status not in (429, 503) else RETRY_AFTER_S
        self.more = dict(more or {})
        self.headers: dict[str, str] = {}


def item_status(code: str) -> int:
    """The HTTP status of an image that failed with this code."""
    if code == TooLargeError.code:
        return 413
    if code in ("model_error", "crashed_worker", "time_limit", "internal_error", "service_error"):
        return 500
    return 422


def problem_of(error: Exception) -> Problem:
    """The problem that an exception is. What is ours to mend shows its class's text and nothing else."""
    if isinstance(error, Problem):
        return error
    if isinstance(error, HTTPException):
        return _of_http(error)
    if isinstance(error, SenderError):
        return _of_sender(error)
    if isinstance(error, GONE):
        return Problem(503, "broker_unavailable", "Redis does not answer", retry_after=RETRY_AFTER_S)
    if isinstance(error, LabelmillError):
        log.error("%s: %s", error.code, error.message)
        return Problem(500, error.code, (type(error).__doc__ or "").partition("\n")[0])
    log.error("unforeseen", exc_info=error)
    return Problem(500, "internal_error", "something went wrong here; it was logged")


def _of_sender(error: SenderError) -> Problem:
    if isinstance(error, ModelNotServedError):
        return Problem(503, error.code, "no worker serves this model now", retry_after=RETRY_AFTER_S)
    if isinstance(error, JobError):
        return Problem(409, error.code, error.message)
    return Problem(item_status(error.code) if isinstance(error, ItemError) else 422, error.code, error.message)


def _of_http(error: HTTPException) -> Problem:
    status = error.code or 500
    text = (error.description or "").replace("\n", " ") if status < 500 else HTTPStatus(status).phrase
    problem = Problem(status, _CODES.get(status, "bad_request" if status < 500 else "internal_error"), text)
    allowed = getattr(error, "valid_methods", None)
    if allowed:
        problem.headers["Allow"] = ", ".join(sorted(allowed))
    return problem


def render(problem: Problem) -> Response:
    """The answer: problem details, or the classic form where the classic endpoint was called."""
    classic = request.path == "/predict"
    if classic:
        code = {} if problem.code == "image_not_found" else {"code": problem.code}  # that answer is known as it is
        body = {"error": problem.message, **code, **problem.more}
    else:
        body = {
            "type": f"urn:labelmill:error:{problem.code}",
            "title": HTTPStatus(problem.status).phrase,
            "status": problem.status,
            "detail": problem.message,
            "code": problem.code,
            **problem.more,
        }
        if request.path.startswith("/v2/"):
            body["error"] = problem.message  # where clients of the Open Inference Protocol look
    kind = "application/json" if classic else "application/problem+json"
    answer = Response(orjson.dumps(body), problem.status, content_type=kind)
    answer.headers.update(problem.headers)
    if problem.retry_after is not None:
        answer.headers["Retry-After"] = str(max(1, problem.retry_after))
    return answer


def install(app: Flask) -> None:
    """Have every exception of a view leave as a problem."""

    def handle(error: Exception) -> Response:
        return render(problem_of(error))

    app.register_error_handler(Exception, handle)
