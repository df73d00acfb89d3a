"""The life of a worker: STARTING, READY, DRAINING, or SETUP_FAILED with an exit code of its own.

A worker is a Celery worker of ``tasks.app``, started by ``labelmill-worker serve`` or by ``celery -A tasks worker``.
:func:`install` hooks into it: the processes of its pool load the model and say over a pipe how that went, and a step
before Celery's consumer waits for them, so that no message is taken before every process is ready.
"""

from __future__ import annotations

import json
import logging
import os
import select
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from billiard.process import current_process
from celery import Celery, bootsteps
from celery.concurrency.prefork import TaskPool as PreforkPool
from celery.signals import setup_logging, worker_process_init, worker_shutdown, worker_shutting_down
from celery.utils.imports import load_extension_class_names
from celery.worker import state as worker_state
from kombu.exceptions import OperationalError

from jobs import logs
from jobs.backlog import BacklogWatch
from jobs.connection import connect, driver_version
from jobs.errors import CrashedWorkerError, LabelmillError, ModelFileError, ModelUnsupportedError, UsageError
from jobs.lanes import interactive, served_by
from jobs.orphans import end_with_parent
from jobs.patience import GONE
from jobs.settings import Settings
from jobs.tickets import Bell
from worker import metrics, postbox
from worker.consumer import wake_after
from worker.drain import Drain
from worker.health import Beacon
from worker.health import folder as health_folder
from worker.models import loader
from worker.node import Node, State
from worker.requests import settle_lost
from worker.revoked import revoked
from worker.wards import Slots, Wards
from worker.watch import Watch

if TYPE_CHECKING:
    from worker.warm import Warm

__all__ = ["install", "report_crash"]

log = logging.getLogger(__name__)


@dataclass
class _Installed:
    """What belongs to this worker's main process; its pool's processes inherit the pipe."""

    settings: Settings
    node: Node
    reader: int
    writer: int
    pid: int
    drain: Drain
    slots: Slots
    wards: Wards | None = None
    backlog: BacklogWatch | None = None


_installed: _Installed | None = None


def install(app: Celery, *, chose_queues: bool, name: str = "") -> None:
    """Make this Celery worker serve the models of the settings. Ends the process where that cannot be."""
    global _installed
    try:
        settings = Settings.from_env()
        metrics.prepare(settings)
        _preload()
        in_hand = partial(len, worker_state.reserved_requests)
        node = Node(app, settings, _identify(settings), in_hand=in_hand, pids=_pids)
        Beacon(health_folder(settings), lambda: _status(node)).start()
    except LabelmillError as exc:
        _die(exc.message, exc.exit_code)
    revoked().follow(worker_state.revoked)
    reader, writer = os.pipe()
    slots = Slots()
    drain = Drain(node, settings, Bell(app), slots)
    _installed = _Installed(settings, node, reader, writer, os.getpid(), drain, slots)
    _set_up_logging(settings, name)
    setup_logging.connect(partial(_set_up_logging, settings, name), weak=False)
    for root in settings.unreadable_roots:
        log.warning("LABELMILL_FILE_ROOTS: %s cannot be read: every image under it will fail", root)
    if not chose_queues:
        lanes = [lane for model in node.models for lane in served_by(model.name, model.digest)]
        # Callers that name no model are routed by what LABELMILL_MODEL says: a renamed file is known by two names.
        app.amqp.queues.select(list(dict.fromkeys([*lanes, interactive(settings.model_name)])))
    app.steps["worker"].add(AwaitModels)
    worker_process_init.connect(_set_up_process, weak=False)
    worker_shutting_down.connect(drain.asked, weak=False)
    worker_shutdown.connect(_farewell, weak=False)
    for noisy in ("celery.worker.strategy", "celery.app.trace"):  # a line for each message helps nobody
        logging.getLogger(noisy).setLevel(logging.WARNING)


def _set_up_logging(settings: Settings, name: str, loglevel: Any = None, **_: Any) -> None:
    logs.configure(loglevel or logging.INFO, worker=name, form=settings.log_format)


def _pids() -> list[int]:
    """The processes of the pool, those that are watched."""
    return _installed.wards.pids() if _installed and _installed.wards else []


def _status(node: Node) -> dict[str, Any]:
    """What the worker answers to ``labelmill-worker health``."""
    models = [{"name": model.name, "digest": model.digest} for model in node.models]
    return {"pid": os.getpid(), "state": str(node.shown), "busy": node.in_hand(), "models": models}


def report_crash(token: str, error: LabelmillError) -> None:
    """Tell the ledger that the process with this lease died."""
    assert_installed().node.report_crash(token, error)


def assert_installed() -> _Installed:
    """What :func:`install` made."""
    if _installed is None:
        raise ModelFileError("this process is no worker")
    return _installed


class AwaitModels(bootsteps.StartStopStep):  # type: ignore[misc]
    """Stands between the pool and the consumer: no message is taken before every process is ready."""

    requires = ("celery.worker.components:Pool",)

    def start(self, worker: Any) -> None:
        """Wait for the pool's processes, or set up this one where the pool has none."""
        mine = assert_installed()
        mine.drain.start()
        mine.wards = Wards(mine.slots, partial(_ward_died, mine, worker))
        # with --autoscale the pool begins with the fewest
        processes = worker.min_concurrency if issubclass(worker.pool_cls, PreforkPool) else 1
        if worker.pool_cls.__module__.endswith(("thread", "gevent", "eventlet")):
            _set_up_process()
        if worker.pool_cls.__module__.endswith("thread"):
            wake_after(worker.pool)
        rates = self._await(mine, processes)
        _serve_metrics(mine, processes)
        mine.node.start(worker.hostname, processes, rates)
        mine.wards.start()
        mine.backlog = BacklogWatch(connect(mine.settings), Bell(worker.app), prefix=mine.settings.key_prefix)
        mine.backlog.start()
        Watch(mine.node, mine.drain, mine.settings, Bell(worker.app), worker).start()
        if issubclass(worker.pool_cls, PreforkPool):
            threading.Thread(target=_watch, args=(mine, worker), name="set-up-watch", daemon=True).start()

    def _await(self, mine: _Installed, processes: int) -> dict[str, float]:
        deadline = time.monotonic() + mine.settings.setup_timeout_s
        rates: dict[str, float] = {}
        for _ in range(processes):
            if not select.select([mine.reader], [], [], max(0.0, deadline - time.monotonic()))[0]:
                raise _failed(f"no model after {mine.settings.setup_timeout_s:g} s", ModelFileError.exit_code)
            report = next(_reports(mine.reader))
            if "error" in report:
                raise _failed(report["error"], report["exit_code"])
            _look_after(mine, report)
            rates = report["images_per_s"]
        return rates


def _farewell(**_: Any) -> None:
    """The pool has ended, and with it what it held."""
    mine = assert_installed()
    if mine.backlog:
        mine.backlog.stop()
    mine.node.stop()


def _serve_metrics(mine: _Installed, processes: int) -> None:
    settings = mine.settings
    if not settings.metrics_port:
        return
    from worker import exposition

    try:
        exposition.serve(settings, exposition.NodeCollector(mine.node, settings, processes, list(State)))
    except OSError as exc:
        at = f"{settings.metrics_host}:{settings.metrics_port}"
        raise _failed(f"LABELMILL_METRICS_PORT: cannot serve metrics at {at} ({exc})", UsageError.exit_code) from exc


def _set_up_process(**_: Any) -> None:
    """In a process of the pool: load the models and report. Ends the process where that fails."""
    mine = assert_installed()
    if os.getpid() != mine.pid:
        end_with_parent(signal.SIGKILL)  # a killed worker leaves no process behind that nobody watches
        if os.getppid() != mine.pid:
            os._exit(1)  # it was killed before that
    try:
        made = _made(mine)
    except LabelmillError as exc:
        if os.getpid() == mine.pid:  # pools of one process or of threads: nobody would read a report
            raise _failed(exc.message, exc.exit_code) from exc
        _report(mine, {"error": exc.message, "exit_code": exc.exit_code})
        raise SystemExit(exc.exit_code) from exc
    except Exception as exc:
        log.exception("the model could not be set up")
        _report(mine, {"error": f"{type(exc).__name__}: {exc}", "exit_code": ModelFileError.exit_code})
        raise SystemExit(ModelFileError.exit_code) from exc
    _report(mine, {"images_per_s": made.images_per_s, "pid": os.getpid()})


def _made(mine: _Installed) -> Warm:
    """The warm models. Raises a :class:`~jobs.errors.LabelmillError` that says what is wrong, or what is lacking."""
    try:
        from worker import warm  # it loads the runtime here: neither torch nor onnxruntime may run before the fork

        return warm.set_up(mine.settings, note=_note(mine), count=_count(mine), is_closed=mine.slots.is_closed)
    except ImportError as exc:
        raise _lacks(exc) from exc


def _preload() -> None:
    """Import what images need, but for a runtime, and look up what connections and answers do.

    The processes that are forked off this one share it: each would look at every package that is installed.

    Raises :class:`~jobs.errors.ModelUnsupportedError` where a package is lacking.
    """
    try:
        from worker import calls, gather, turn  # noqa: F401
    except ImportError as exc:
        raise _lacks(exc) from exc
    driver_version()
    load_extension_class_names("celery.result_backends")  # Celery keeps it


def _lacks(exc: ImportError) -> ModelUnsupportedError:
    return ModelUnsupportedError(f"a worker needs {exc.name or exc}; install labelmill[onnx] or labelmill[torch]")


def _note(mine: _Installed) -> Callable[[str], None]:
    """How a process of the pool says what it holds; a pool of threads ends with its main process, which needs none."""
    if os.getpid() == mine.pid:
        return lambda token: None
    return partial(mine.slots.write, current_process().index)


def _count(mine: _Installed) -> Callable[[int], None]:
    """How a process says how many images it has just computed."""
    return partial(mine.node.tally.add, current_process().index if os.getpid() != mine.pid else 0)


def _report(mine: _Installed, report: dict[str, Any]) -> None:
    text = json.dumps(report).encode()
    if len(text) >= select.PIPE_BUF:  # only a write up to PIPE_BUF is atomic
        text = json.dumps({**report, "error": str(report.get("error"))[:1000]}).encode()
    os.write(mine.writer, text + b"\n")


def _reports(reader: int) -> Iterator[dict[str, Any]]:
    """Reports of the pool's processes as they come; one line each."""
    line = b""
    while byte := os.read(reader, 1):
        if byte == b"\n":
            yield json.loads(line)
            line = b""
        else:
            line += byte


def _watch(mine: _Installed, worker: Any) -> None:
    """Processes that replace dead ones report too: one that cannot be set up ends the worker."""
    for report in _reports(mine.reader):
        if "error" in report:
            _failed(report["error"], report["exit_code"])
            worker_state.should_terminate = report["exit_code"]
        else:
            _look_after(mine, report)


def _look_after(mine: _Installed, report: dict[str, Any]) -> None:
    if mine.wards and report["pid"] != mine.pid:
        mine.wards.add(report["pid"])


def _ward_died(mine: _Installed, worker: Any, token: str) -> None:
    if token.startswith(postbox.HELD):
        _bring_back(worker.app, token)
        return
    mine.node.report_crash(token, CrashedWorkerError())
    settle_lost(worker, token)


def _bring_back(app: Celery, held: str) -> None:
    """The calls that a dead process had taken along wait again."""
    try:
        count = postbox.bring_back(app, held)
        log.warning("a process ended with %d calls that it had taken along: they wait again", count)
    except (*GONE, OperationalError) as exc:
        log.warning("calls that a dead process held could not be put back (%s): they come later", type(exc).__name__)


def _failed(message: str, code: int) -> SystemExit:
    assert_installed().node.enter(State.SETUP_FAILED)
    print(f"labelmill-worker: {message}", file=sys.stderr, flush=True)
    return SystemExit(code)


def _die(message: str, code: int) -> None:
    print(f"labelmill-worker: {message}", file=sys.stderr, flush=True)
    raise SystemExit(code)


def _identify(settings: Settings) -> list[tuple[Any, str]]:
    model_dir = Path(settings.model_dir) if settings.model_dir else None
    return [loader.identify(name, model_dir=model_dir) for name in settings.models]
