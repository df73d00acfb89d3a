"""Parameters of a query, checked. One that nobody knows is refused: it is a slip more often than not."""

from __future__ import annotations

from flask import request

from producer.web.problems import Problem

__all__ = ["PARAMETERS", "digits", "flag", "number", "refuse_unknown"]


#: The parameters of each call that has some; /openapi.json says the same.
PARAMETERS = {
    "POST /v1/jobs": {"model", "top_k", "digest", "expires_s", "metadata"},
    "GET /v1/jobs": {"limit", "after"},
    "DELETE /v1/jobs/<job_id>": {"force"},
    "GET /v1/jobs/<job_id>/results": {"after", "limit", "follow", "format", "download"},
    "GET /v1/jobs/<job_id>/errors": {"after", "limit", "follow", "format", "download"},
    "GET /v1/jobs/<job_id>/events": {"after", "results"},
}


def refuse_unknown() -> None:
    """Before each view: raises :class:`Problem` where the query has a parameter that the call has not, or one twice."""
    if request.url_rule is None or not request.args:
        return
    method = "GET" if request.method == "HEAD" else request.method
    known = PARAMETERS.get(f"{method} {request.url_rule.rule}", set())
    for name, values in request.args.lists():
        if name not in known:
            raise Problem(400, "unknown_parameter", f"there is no parameter {name[:80]!a} here")
        if len(values) > 1:
            raise Problem(400, "bad_parameter", f"{name} is there twice")


def flag(name: str) -> bool:
    """True or false; false where it is not there."""
    value = request.args.get(name, "false")
    if value not in ("false", "true"):
        raise Problem(422, "bad_parameter", f"{name} must be true or false")
    return value == "true"


def number(name: str, most: int) -> int | None:
    """A whole number from 1 on; None where it is not there."""
    text = request.args.get(name)
    if text is None:
        return None
    found = digits(text)
    if found is None or not 1 <= found <= most:
        raise Problem(422, "bad_parameter", f"{name} must be 1 to {most}")
    return found


def digits(text: str) -> int | None:
    """A whole number of at most 19 digits, as a sender writes it; None where it is none."""
    return int(text) if text.isascii() and text.isdigit() and len(text) <= 19 else None
