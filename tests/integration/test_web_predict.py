"""POST /predict and GET /v1/tasks/ID, through a real gunicorn, a real Redis and a real worker."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.gateway import GatewayProcess, gateway
from tests.support.servers import RedisServer, WorkerProcess, eventually, redis_server, worker_process

PICTURE = ("cat.jpg", b"any bytes: the model decodes nothing", "image/jpeg")


@pytest.fixture(scope="module")
def web() -> Iterator[GatewayProcess]:
    """A gateway with its embedded pair, for small pictures."""
    with gateway(env={"LABELMILL_WEB_PREDICT_BYTES": "1000"}) as process:
        yield process


@pytest.fixture(scope="module")
def impatient() -> Iterator[tuple[GatewayProcess, WorkerProcess]]:
    """A gateway that waits for half a second, and for three calls in the queue; and its worker."""
    limits = {"LABELMILL_WEB_PREDICT_TIMEOUT_S": "0.5", "LABELMILL_WEB_BACKLOG": "3"}
    with redis_server() as redis, worker_process(redis) as worker, gateway(redis=redis, env=limits) as process:
        yield process, worker


def test_a_picture_is_answered_with_its_name_and_labels(web: GatewayProcess) -> None:
    answer = web.post("/predict", files={"image": PICTURE})
    assert answer.status_code == 200
    body = answer.json()
    assert body["object_name"] == "noop-0"
    assert body["labels"][0] == {"label": "noop-0", "index": 0, "score": 0.5}
    assert len(body["labels"]) == 5
    assert body["model"]["name"] == "noop"
    assert body["model"]["digest"].startswith("sha256:")
    assert set(body["timing"]) == {"upload_ms", "answer_ms"}


def test_fields_choose_the_model_and_the_number_of_labels(web: GatewayProcess) -> None:
    answer = web.post("/predict", files={"image": PICTURE}, data={"top_k": "2", "model": "noop"})
    assert [label["label"] for label in answer.json()["labels"]] == ["noop-0", "noop-1"]


@pytest.mark.parametrize(
    "request_options",
    [
        {"files": {"picture": PICTURE}},
        {"data": {"image_name": "cat.jpg"}},
        {"data": b"\xff\xd8", "headers": {"Content-Type": "image/jpeg"}},
        {},
    ],
    ids=["another field", "a form without files", "no form", "no body"],
)
def test_without_the_field_the_answer_is_the_classic_one(
    web: GatewayProcess, request_options: dict[str, object]
) -> None:
    answer = web.post("/predict", **request_options)
    assert answer.status_code == 400
    assert answer.json() == {"error": "Image not found"}


@pytest.mark.parametrize(
    ("fields", "status", "code"),
    [
        ({"top_k": "0"}, 422, "bad_top_k"),
        ({"top_k": "many"}, 422, "bad_top_k"),
        ({"top_k": "9" * 5000}, 422, "bad_top_k"),  # more digits than Python reads
        ({"model": "nobody"}, 404, "model_not_served"),
        ({"model": "../../etc/passwd"}, 422, "bad_model"),
    ],
)
def test_what_the_sender_did_wrong_has_a_code(
    web: GatewayProcess, fields: dict[str, str], status: int, code: str
) -> None:
    answer = web.post("/predict", files={"image": PICTURE}, data=fields)
    assert (answer.status_code, answer.json()["code"]) == (status, code)


def test_a_call_can_be_looked_up_afterwards(web: GatewayProcess) -> None:
    task = web.post("/predict", files={"image": PICTURE}).json()["task_id"]
    found = web.get(f"/v1/tasks/{task}").json()
    assert found["state"] == "succeeded"
    assert found["result"]["custom_id"] == "cat.jpg"


@pytest.mark.parametrize("task", ["00000000-0000-0000-0000-000000000000", "no-id", "..%2f..%2fetc"])
def test_an_unknown_call_is_not_found(web: GatewayProcess, task: str) -> None:
    answer = web.get(f"/v1/tasks/{task}")
    assert answer.status_code == 404
    assert answer.headers["Content-Type"] == "application/problem+json"


def test_names_of_files_are_text_and_nothing_else(web: GatewayProcess) -> None:
    for name in ("../../etc/passwd", "<img src=x onerror=alert(1)>", "x" * 3000, 'quo"te.jpg', "grüße.jpg"):
        answer = web.post("/predict", files={"image": (name, b"bytes", "image/jpeg")})
        assert answer.status_code == 200, name
        custom_id = web.get(f"/v1/tasks/{answer.json()['task_id']}").json()["result"]["custom_id"]
        assert custom_id == name[:1024]


def test_a_picture_over_the_limit_is_refused(web: GatewayProcess) -> None:
    assert web.post("/predict", files={"image": ("a.jpg", b"x" * 1000)}).status_code == 200
    for size in (1001, 3 << 20):
        answer = web.post("/predict", files={"image": ("a.jpg", b"x" * size)})
        assert (answer.status_code, answer.json()["code"]) == (413, "too_large")


def test_without_an_answer_in_time_the_task_can_be_polled(impatient: tuple[GatewayProcess, WorkerProcess]) -> None:
    web, worker = impatient
    worker.pause()
    answer = web.post("/predict", files={"image": PICTURE})
    assert answer.status_code == 504
    body = answer.json()
    assert body["code"] == "timeout"
    assert web.get(body["poll"]).json() == {"id": body["task_id"], "state": "queued"}
    worker.resume()
    found = eventually(lambda: web.get(body["poll"]).json().get("result"), what="the answer is there")
    assert found["labels"][0]["label"] == "noop-0"


def test_calls_past_the_backlog_are_refused_and_told_when_to_come_again(
    impatient: tuple[GatewayProcess, WorkerProcess],
) -> None:
    web, worker = impatient
    worker.pause()
    answers = iter(lambda: web.post("/predict", files={"image": PICTURE}), None)
    refused = next(answer for answer in answers if answer.status_code != 504)
    assert (refused.status_code, refused.json()["code"]) == (503, "backlog")
    assert int(refused.headers["Retry-After"]) > 0
    worker.resume()


def test_without_a_worker_the_service_is_unavailable_and_not_ready(redis: RedisServer) -> None:
    with gateway(redis=redis) as web:
        answer = web.post("/predict", files={"image": PICTURE})
        assert (answer.status_code, answer.json()["code"]) == (503, "model_not_served")
        assert int(answer.headers["Retry-After"]) > 0
        assert web.get("/v2/health/ready").status_code == 503
        assert web.get("/v2/health/live").json() == {"live": True}
        with worker_process(redis):
            eventually(lambda: web.get("/v2/health/ready").status_code == 200, what="ready with a worker")
            assert web.post("/predict", files={"image": PICTURE}).status_code == 200


def test_a_redis_that_is_gone_is_said_and_waited_for(redis: RedisServer) -> None:
    with worker_process(redis) as worker, gateway(redis=redis) as web:
        assert web.post("/predict", files={"image": PICTURE}).status_code == 200
        redis.kill9()
        answer = web.post("/predict", files={"image": PICTURE})
        assert (answer.status_code, answer.json()["code"]) == (503, "broker_unavailable")
        assert str(redis.socket) not in answer.text
        assert web.get("/v2/health/live").status_code == 200
        redis.start()
        worker.wait_ready()
        eventually(lambda: web.post("/predict", files={"image": PICTURE}).status_code == 200, what=worker.log)
