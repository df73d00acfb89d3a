"""Single calls: what a process answers to ``tasks.classify``."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from jobs.errors import InvalidItemError, TooLargeError
from jobs.items import Item, decode_outcomes, label_objects
from worker.ahead import FetchAhead
from worker.engine import Engine
from worker.fetch import is_remote
from worker.warm import Warm, current

__all__ = ["Call", "answer_all"]


@dataclass(frozen=True)
class Call:
    """The arguments of ``tasks.classify``; without ``top_k``, as many labels as the model's card says."""

    image: str
    model: str | None = None
    top_k: int | None = None
    data: str | None = None

    def is_sound(self) -> bool:
        """Whether the arguments are of their types; a wrong one must not fail the calls beside it."""
        texts = isinstance(self.image, str) and isinstance(self.model or "", str) and isinstance(self.data or "", str)
        return texts and (self.top_k is None or (isinstance(self.top_k, int) and self.top_k > 0))


def answer_all(calls: Sequence[Call]) -> list[dict[str, Any]]:
    """A result line as a dict for each call, in order; a bad image is a failed line and raises nothing.

    Raises :class:`~jobs.errors.ModelNotServedError` for a model that is not served here.
    """
    warm = current()
    answers = {position: _refused(call) for position, call in enumerate(calls) if not call.is_sound()}
    for model in {call.model for call in calls if call.is_sound()}:
        engine = warm.engine(model) if model else warm.default_engine()
        mine = [(position, call) for position, call in enumerate(calls) if call.is_sound() and call.model == model]
        found = _answer(warm, engine, [call for _, call in mine])
        answers |= {position: answer for (position, _), answer in zip(mine, found, strict=True)}
    return [answers[position] for position in range(len(calls))]


def _refused(call: Call) -> dict[str, Any]:
    error = InvalidItemError("image, model and data are text, and top_k is a whole number above 0")
    return {"custom_id": str(call.image), "status": "failed", "error": error.as_dict()}


def _answer(warm: Warm, engine: Engine, calls: Sequence[Call]) -> list[dict[str, Any]]:
    card, digest = engine.runtime.card, engine.runtime.digest
    refs = [str(position) for position in range(len(calls))]
    widest = max(call.top_k or card.top_k for call in calls)
    remote = {ref for ref, call in zip(refs, calls, strict=True) if call.data is None and is_remote(call.image)}
    ahead = FetchAhead(lambda ref: _bytes_of(warm, calls[int(ref)]), is_remote=remote.__contains__)
    if len(calls) > 1:
        ahead.expect(refs)
    try:
        done = engine.run(refs, ahead.fetch, top_k=widest, waits=bool(remote))
    finally:
        ahead.forget()
    warm.computed(card.name, "interactive", done)
    answers: list[dict[str, Any]] = []
    for call, outcome in zip(calls, decode_outcomes(done.lines), strict=True):
        if isinstance(outcome[0], str):
            error = {"code": outcome[0], "message": outcome[1]}
            answers.append({"custom_id": call.image, "status": "failed", "error": error})
            continue
        labels = label_objects(outcome[: 2 * (call.top_k or card.top_k)], card.labels)
        model = {"name": card.name, "digest": digest}
        answers.append({"custom_id": call.image, "status": "succeeded", "labels": labels, "model": model})
    return answers


def _bytes_of(warm: Warm, call: Call) -> bytes:
    if call.data is not None:
        return _inline(call.data, warm.settings.max_bytes)
    return warm.fetcher.fetch(Item(call.image, call.image).checked().ref)


def _inline(data: str, max_bytes: int) -> bytes:
    if len(data) > max_bytes * 4 // 3 + 4:
        raise TooLargeError(f"the upload is larger than {max_bytes} bytes")
    try:
        return base64.b64decode(data, validate=True)
    except binascii.Error as exc:
        raise InvalidItemError("data is not base64") from exc
