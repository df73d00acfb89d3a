"""The gateway: Labelmill over HTTP, and a page. See ``docs/http.md``."""

from __future__ import annotations

from typing import Any

from flask import Flask
from werkzeug.middleware.proxy_fix import ProxyFix

from producer.web import guards, inference, jobs, models, page, predict, problems, queries, streams
from producer.web.bodies import Bodies
from producer.web.guards import Slots
from producer.web.service import Service
from producer.web.settings import WebSettings

__all__ = ["Service", "WebSettings", "create_app"]


def create_app(settings: WebSettings) -> Flask:
    """The WSGI application. It connects to nothing before the first request."""
    app = Flask("labelmill", static_folder=None, template_folder=None)
    app.url_map.merge_slashes = False
    service = Service(settings)
    bodies = Bodies(settings)
    waiting = Slots(settings.web_waiting, "calls")
    app.extensions["labelmill"] = service
    problems.install(app)
    guards.install(app, settings, service)
    app.before_request(queries.refuse_unknown)
    app.register_blueprint(page.blueprint())
    app.register_blueprint(predict.blueprint(service, bodies, waiting))
    app.register_blueprint(jobs.blueprint(service, bodies))
    app.register_blueprint(streams.blueprint(service, Slots(settings.web_streams, "streams")))
    app.register_blueprint(models.blueprint(service))
    app.register_blueprint(inference.blueprint(service, bodies, waiting))
    if settings.web_proxies:
        count = settings.web_proxies
        wrapped: Any = ProxyFix(app.wsgi_app, x_for=count, x_proto=count, x_host=0)
        app.wsgi_app = wrapped  # type: ignore[method-assign]
    return app
