"""The Celery application and its tasks: the contract between producers and workers.

    from tasks import classify
    classify.delay("photos/cat.jpg").get()

Wiring only: nothing is computed here, and neither torch nor onnxruntime is imported on a producer's side.
"""

from __future__ import annotations

import os
from typing import Any

from celery import Celery, Task
from celery.signals import celeryd_init

from jobs.tickets import TICKET_TASK, Bell, token_of
from jobs.transport import WAITING

__all__ = ["app", "classify", "ticket"]

app = Celery("labelmill")
app.config_from_object("celeryconfig")


class _Ticket(Task):  # type: ignore[misc]
    """Tells the ledger when the process that holds a chunk dies."""

    Request = "worker.requests:TicketRequest"


@app.task(name=TICKET_TASK, base=_Ticket, bind=True, ignore_result=True)  # type: ignore[untyped-decorator]
def ticket(self: Task, lane: str) -> None:
    """Classify chunks of a lane, while there are any and it is their turn."""
    from worker import turn

    turn.serve_ticket(lane, token=token_of(self.request.id, os.getpid()), bell=Bell(app))


@app.task(name="labelmill.classify", bind=True)  # type: ignore[untyped-decorator]
def classify(
    self: Task, image: str, *, model: str | None = None, top_k: int | None = None, data: str | None = None
) -> dict[str, Any]:
    """Classify one image through the interactive lane; returns a result line as a dict.

    ``image`` is a reference that workers can read (a path under their file roots, a URL of an allowed host).
    ``data`` carries the bytes of a small upload instead, in base64; ``image`` is then only its name.
    A bad image gives ``{"custom_id": image, "status": "failed", "error": {"code", "message"}}`` and raises nothing,
    so that one of them never fails a group or a chord.
    """
    from worker import calls, gather

    delivery = self.request.delivery_info or {}
    # One that comes again may be what ended its process: it takes no others along.
    queue = "" if delivery.get("redelivered") else delivery.get("routing_key", "")
    call = calls.Call(image, model, top_k, data)
    return gather.gatherer(app).classify(self.request.id, queue, call, waiting=self.request.get(WAITING))


@celeryd_init.connect  # type: ignore[untyped-decorator]
def _become_a_worker(instance: Any = None, options: dict[str, Any] | None = None, **_: Any) -> None:
    chose_queues = bool((options or {}).get("queues"))
    # Celery logs and swallows an Exception of a handler, and would go on without a model: only SystemExit passes.
    try:
        from worker import lifecycle

        lifecycle.install(app, chose_queues=chose_queues, name=getattr(instance, "hostname", ""))
    except ImportError as exc:
        raise SystemExit(f"labelmill-worker: a worker needs {exc.name}; install labelmill[onnx] or [torch]") from exc
    except Exception as exc:
        raise SystemExit(f"labelmill-worker: cannot start: {type(exc).__name__}: {exc}") from exc
