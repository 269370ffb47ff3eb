"""What a worker process shows of itself on this host's loopback: ``/readyz``, and its metrics on every other path."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from threading import Thread
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, make_server

import msgspec
from prometheus_client import make_wsgi_app
from prometheus_client.exposition import ThreadingWSGIServer

from webhook_gateway import telemetry


def show(port: int, stuck: Callable[[], list[str]]) -> None:
    """On the first free port from the one given; 0: nowhere. ``/readyz`` is 503 with the names of what is ``stuck``."""
    metrics: Callable[[Any, Any], Iterable[bytes]] = make_wsgi_app()

    def answer(environ: dict[str, Any], start: Any) -> Iterable[bytes]:
        if environ["PATH_INFO"] != "/readyz":
            return metrics(environ, start)
        names = stuck()
        start("503 Service Unavailable" if names else "200 OK", [("Content-Type", "application/json")])
        return [msgspec.json.encode({"status": "stuck", "stages": names} if names else {"status": "ok"})]

    for candidate in range(port, min(port + 256, 65_536)) if port else ():
        try:
            server = make_server("127.0.0.1", candidate, answer, ThreadingWSGIServer, _Silent)
        except OSError:
            continue
        Thread(target=server.serve_forever, daemon=True).start()
        telemetry.metrics_shown(candidate)
        return


class _Silent(WSGIRequestHandler):
    def log_message(self, *_: object) -> None:
        """No line a scrape."""
