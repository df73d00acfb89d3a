"""What the description cannot tell schemathesis: rules that no request can break, and jobs that nobody takes."""

from __future__ import annotations

import re

import schemathesis
from schemathesis.core.failures import AcceptedNegativeData, Failure
from schemathesis.core.transport import Response

_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")


@schemathesis.hook
def before_call(context: schemathesis.HookContext, case: schemathesis.Case, kwargs: dict[str, object]) -> None:
    """A job of a version that no worker serves waits for one until it expires, and who follows it waits as long."""
    for options in (case.body, case.query):
        if isinstance(options, dict) and _DIGEST.fullmatch(str(options.get("digest"))):
            del options["digest"]


@schemathesis.hook
def filter_failure(
    context: schemathesis.HookContext, failure: Failure, case: schemathesis.Case, response: Response
) -> bool:
    """A field of a form is text or bytes: a list is sent as several fields, or as none, and breaks no rule then."""
    is_form = case.media_type == "multipart/form-data" and isinstance(case.body, dict)
    if not (is_form and isinstance(failure, AcceptedNegativeData)):
        return True
    return not any(isinstance(value, list | dict) for name, value in case.body.items() if name != "files")
