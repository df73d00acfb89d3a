"""Requests and answers of the Open Inference Protocol: tensors in JSON, or raw behind it.

Images are BYTES: base64 strings in JSON, or raw (the binary tensor extension, in which each element of BYTES has its
length before it, 4 bytes little-endian). Outputs come in the form that is asked for, each for itself.
"""

from __future__ import annotations

import base64
import binascii
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import orjson

from producer.web.predict import MAX_TOP_K
from producer.web.problems import Problem
from producer.web.queries import digits

__all__ = ["INPUTS", "MAX_IMAGES", "OUTPUTS", "Call", "Reply", "reply", "split"]

#: Images of one call.
MAX_IMAGES = 16
INPUTS: list[dict[str, Any]] = [{"name": "image", "datatype": "BYTES", "shape": [-1]}]
OUTPUTS: list[dict[str, Any]] = [
    {"name": "labels", "datatype": "BYTES", "shape": [-1, -1]},
    {"name": "scores", "datatype": "FP32", "shape": [-1, -1]},
    {"name": "indices", "datatype": "INT64", "shape": [-1, -1]},
]
#: Each output, and where a result has it.
_COLUMNS = {"labels": "label", "scores": "score", "indices": "index"}


class Call:
    """A checked request: its images, and which outputs in which form. Raises :class:`Problem`."""

    def __init__(self, body: Any, raw: memoryview) -> None:
        if not isinstance(body, dict):
            raise Problem(400, "bad_request", "the body must be an object")
        parameters = _object(body, "parameters")
        self.id = _text(body, "id")
        self.top_k = _top_k(parameters.get("top_k", 5))
        self.outputs = _outputs(body, binary=_flag(parameters, "binary_data_output", default=False))
        self.images = _images(body, raw)


@dataclass(frozen=True)
class Reply:
    """An answer's body; ``json_bytes`` is the length of its JSON where raw tensors follow, else None."""

    body: bytes
    json_bytes: int | None


def split(data: bytes, header: str | None) -> tuple[Any, memoryview]:
    """The JSON of a body and what follows it. ``header`` is the length of the JSON where something does."""
    end = len(data)
    if header is not None:
        length = digits(header)
        if length is None or length > len(data):
            raise Problem(400, "bad_request", "Inference-Header-Content-Length does not fit the body")
        end = length
    try:
        return orjson.loads(data[:end]), memoryview(data)[end:]
    except orjson.JSONDecodeError as exc:
        raise Problem(400, "bad_json", f"the body is not JSON: {exc}") from None


def reply(call: Call, results: Sequence[dict[str, Any]], *, name: str, version: str) -> Reply:
    """The answer to a call, with a row of labels for each image."""
    width = len(results[0]["labels"])
    outputs, raw = [], []
    for output in OUTPUTS:
        if output["name"] not in call.outputs:
            continue
        values = [label[_COLUMNS[output["name"]]] for result in results for label in result["labels"]]
        shaped = {**output, "shape": [len(results), width]}
        if call.outputs[output["name"]]:
            packed = _packed(output["datatype"], values)
            raw.append(packed)
            outputs.append({**shaped, "parameters": {"binary_data_size": len(packed)}})
        else:
            outputs.append({**shaped, "data": values})
    identity = {"id": call.id} if call.id else {}
    head = orjson.dumps({"model_name": name, "model_version": version, **identity, "outputs": outputs})
    return Reply(head + b"".join(raw), len(head) if raw else None)


def _packed(datatype: str, values: Sequence[Any]) -> bytes:
    if datatype == "BYTES":
        texts = [text.encode() for text in values]
        return b"".join(struct.pack("<I", len(text)) + text for text in texts)
    return struct.pack(f"<{len(values)}{'f' if datatype == 'FP32' else 'q'}", *values)


def _outputs(body: dict[str, Any], *, binary: bool) -> dict[str, bool]:
    """The outputs that are asked for, each with whether it is to come raw."""
    known = list(_COLUMNS)
    asked = body.get("outputs") or [{"name": name} for name in known]
    if not isinstance(asked, list) or any(not isinstance(one, dict) or one.get("name") not in known for one in asked):
        raise Problem(422, "bad_output", f"outputs can be {', '.join(_COLUMNS)}")
    return {one["name"]: _flag(_object(one, "parameters"), "binary_data", default=binary) for one in asked}


def _images(body: dict[str, Any], raw: memoryview) -> list[bytes]:
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
        raise Problem(422, "bad_input", f"shape does not fit: there are {len(images)} images")
    if not 1 <= len(images) <= MAX_IMAGES:
        raise Problem(422, "bad_input", f"1 to {MAX_IMAGES} images in one call; more make a job: POST /v1/jobs")
    return images


def _from_json(data: Any) -> list[bytes]:
    if not isinstance(data, list):
        raise Problem(422, "bad_input", "data must be a list of images in base64")
    flat = [one[0] if isinstance(one, list) and len(one) == 1 else one for one in data]
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


def _flag(parameters: dict[str, Any], key: str, *, default: bool) -> bool:
    value = parameters.get(key, default)
    if not isinstance(value, bool):
        raise Problem(422, "bad_request", f"{key} must be true or false")
    return value


def _top_k(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= MAX_TOP_K:
        raise Problem(422, "bad_top_k", f"top_k must be 1 to {MAX_TOP_K}")
    return value
