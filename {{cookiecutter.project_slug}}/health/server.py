"""A small HTTP server inside a worker, a beat or the exporter: `/livez`, `/readyz` and `/metrics`.

It runs in a thread of the main process, so that an answer also says that the process is not stopped. It
listens on this machine alone unless METRICS_HOST says otherwise, and never on the port of web.
"""

import json
import os
import socket
import threading
from collections.abc import Callable, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from socketserver import TCPServer
from typing import Any, NamedTuple

import structlog
from django.conf import settings
from prometheus_client import CONTENT_TYPE_LATEST, REGISTRY, generate_latest

logger = structlog.get_logger(__name__)

# Where each kind of process listens, unless METRICS_PORT names another port.
PORTS = {"web": 9811, "worker": 9812, "beat": 9813, "exporter": 9814}


class Answer(NamedTuple):
    """What a page says."""

    status: int
    content_type: str
    body: bytes


Page = Callable[[], Answer]


def as_json(ok: bool, **facts: Any) -> Answer:
    """Return an answer to a probe: 200 when all is well, else 503, with what led to that."""
    body = json.dumps({"status": "ok" if ok else "unavailable", **facts})
    return Answer(200 if ok else 503, "application/json", body.encode())


def figures() -> Answer:
    """Return what this process counts, for Prometheus."""
    return Answer(200, CONTENT_TYPE_LATEST, generate_latest(REGISTRY))


class _Server(ThreadingHTTPServer):
    daemon_threads = True  # an open connection must not hold up the end of the process
    pages: Mapping[str, Page]

    def server_bind(self) -> None:
        """Bind, without asking a name server for the name of the address, as HTTPServer does."""
        TCPServer.server_bind(self)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say in the log what went wrong; a client that went away did nothing wrong."""
        logger.debug("monitoring_request_failed", exc_info=True)


class _Handler(BaseHTTPRequestHandler):
    timeout = 5  # seconds that a client may take
    server: _Server

    def do_GET(self) -> None:
        page = self.server.pages.get(self.path.partition("?")[0])
        status, content_type, body = page() if page else Answer(404, "text/plain", b"not here\n")
        self.send_response(status)
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Cache-Control", "no-store")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    do_HEAD = do_GET

    def log_message(self, *_: Any) -> None:
        """Probes and scrapes come every few seconds: they are not logged."""


def serve(role: str, pages: Mapping[str, Page], *, required: bool = False) -> None:
    """Serve `pages`, and `/metrics`, from now to the end of this process. `role` is a key of PORTS.

    A port that is taken is an error in the log and no reason to stop: tasks come first, and what
    monitors this process will miss it. With `required` it is an OSError.
    """
    host, port = settings.METRICS_HOST, settings.METRICS_PORT or PORTS[role]
    try:
        listen(host, port, {"/metrics": figures, **pages})
    except OSError as error:
        if required:
            raise
        logger.error("monitoring_not_served", host=host, port=port, error=str(error))


def listen(host: str, port: int, pages: Mapping[str, Page]) -> None:
    """Serve `pages` there; OSError when that is not possible. Needs no settings of Django."""
    kind = type("Server", (_Server,), {"address_family": socket.AF_INET6 if ":" in host else socket.AF_INET})
    server: _Server = kind((host, port), _Handler)
    server.pages = pages
    # A child that outlives this process must not keep the port from the next one.
    os.register_at_fork(after_in_child=server.socket.close)
    threading.Thread(target=server.serve_forever, name="monitoring", daemon=True).start()
