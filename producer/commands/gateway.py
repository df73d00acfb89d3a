"""``labelmill gateway``: Labelmill over HTTP, and a page.

With a broker named it uses that Redis and the workers that serve it; without, an embedded pair for as long as it runs.
"""

from __future__ import annotations

import argparse
import ipaddress
import logging
import os
import socket
import sys
import webbrowser
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING

from jobs.errors import UsageError
from jobs.parser import positive
from jobs.settings import DEFAULT_MODEL
from producer import interrupts
from producer.client import Labelmill
from producer.embedded import Embedded

if TYPE_CHECKING:
    from producer.web.settings import WebSettings

__all__ = ["add_arguments", "run"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of ``gateway``."""
    parser.add_argument("--host", default="127.0.0.1", help="address to listen at; default: 127.0.0.1")
    parser.add_argument("--port", type=_port, default=8000, help="default: 8000; 0: a free one")
    parser.add_argument("--model", metavar="NAME_OR_FILE", help=f"[LABELMILL_MODEL] default: {DEFAULT_MODEL}")
    parser.add_argument(
        "--broker", metavar="URL", help="a Redis with workers [LABELMILL_BROKER_URL]; default: embedded"
    )
    parser.add_argument("--concurrency", type=positive, metavar="N", help="processes of the embedded worker")
    parser.add_argument(
        "--processes",
        type=positive,
        metavar="N",
        help="processes of the gateway [LABELMILL_WEB_PROCESSES]; default: 2",
    )
    parser.add_argument("--access-log", action="store_true", help="print a line for each request")
    parser.add_argument("--open", action="store_true", help="open the page in a browser, where there is one")
    parser.add_argument("--debug", action="store_true", help="Flask's own server with its debugger; never in public")


def run(args: argparse.Namespace) -> int:
    """Serve until SIGTERM or Ctrl-C; returns the exit code."""
    if args.debug and not _is_loopback(args.host):
        raise UsageError("--debug runs any code that a visitor types: it is for 127.0.0.1 only")
    settings = _settings(args)
    _check_address(args.host, args.port)
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    with _service(args, settings) as (settings, check):
        serve = _debug if args.debug else _gunicorn
        return serve(args, settings, check)


def _settings(args: argparse.Namespace) -> WebSettings:
    try:
        from producer.web.settings import WebSettings
    except ImportError as exc:
        raise UsageError("the gateway needs Flask and gunicorn; install labelmill[web]") from exc
    settings = WebSettings.from_env()
    if args.processes:
        settings = replace(settings, web_processes=args.processes)
    if args.model:
        settings = replace(settings, model=args.model)
    if not settings.web_hosts and _is_loopback(args.host):
        from producer.web.guards import LOOPBACK_HOSTS

        settings = replace(settings, web_hosts=(*LOOPBACK_HOSTS, args.host))
    return settings


def _check_address(host: str, port: int) -> None:
    """Say in one line, before anything is started, where nobody can listen there."""
    try:
        family, kind, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
    except OSError as exc:
        raise UsageError(
            f"cannot listen at {host} port {port} ({exc.strerror}): choose another --port or --host"
        ) from None


@contextmanager
def _service(args: argparse.Namespace, settings: WebSettings) -> Iterator[tuple[WebSettings, Callable[[], None]]]:
    """Settings that name a Redis with workers, and a look whether what was started here still runs."""
    if args.broker or os.environ.get("LABELMILL_BROKER_URL"):
        settings = replace(settings, broker_url=args.broker or settings.broker_url)
        Labelmill(settings=settings)  # says at once where Redis is not there
        yield settings, lambda: None
        return
    _say("starting a Redis and a worker of its own")
    with Embedded(settings, model=settings.model, file_roots=(), concurrency=args.concurrency) as pair:
        model = pair.wait_ready(_say)
        yield replace(settings, broker_url=pair.settings.broker_url, ledger_url="", model=model.name), pair.check


def _gunicorn(args: argparse.Namespace, settings: WebSettings, check: Callable[[], None]) -> int:
    from producer.web.server import Gateway

    def ready(address: str) -> None:
        _say(f"serving {settings.model_name} at {address} (Ctrl-C ends it)")
        if args.open:
            webbrowser.open(address)

    gateway = Gateway(settings, host=args.host, port=args.port, access_log=args.access_log, ready=ready, check=check)
    code = gateway.run()
    interrupts.install()  # gunicorn has handlers of its own
    return code


def _debug(args: argparse.Namespace, settings: WebSettings, check: Callable[[], None]) -> int:
    from producer.web import create_app

    create_app(settings).run(args.host, args.port, debug=True, use_reloader=False, threaded=True)
    return 0


def _say(line: str) -> None:
    print(f"labelmill: {line}", file=sys.stderr, flush=True)


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _port(text: str) -> int:
    if not text.isascii() or not text.isdigit() or int(text) > 65_535:
        raise argparse.ArgumentTypeError(f"{text!r} is no port, 0 to 65535")
    return int(text)
