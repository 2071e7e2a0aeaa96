"""Errors arrive at Sentry by SENTRY_DSN alone, without passwords and without what tasks redact."""

import gzip
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from django.conf import settings

from dev.processes import free_port
from jobs.tasks import write_report
from tests import tasks
from tests.brokers import absent_broker
from tests.harness import StartWorker, eventually
from tests.test_web import Web, start_web  # noqa: F401  # a fixture

SECRET = "hunter2-in-clear"
ABSENT_DATABASE = f"postgres://app:{SECRET}@127.0.0.1:{free_port()}/app"


class Sentry(ThreadingHTTPServer):
    """Keeps what it is sent."""

    daemon_threads = True

    def __init__(self) -> None:
        """Listen on a port of its own."""
        super().__init__(("127.0.0.1", 0), _Handler)
        self.dsn = f"http://key@127.0.0.1:{self.server_address[1]}/1"
        self.envelopes: list[str] = []

    def wait_for(self, text: str) -> str:
        """Return all that came, once something tells `text`."""
        eventually(lambda: any(text in envelope for envelope in self.envelopes), f"Sentry to hear of {text}")
        return "\n".join(self.envelopes)


class _Handler(BaseHTTPRequestHandler):
    server: Sentry

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        assert self.headers["Content-Encoding"] == "gzip"
        self.server.envelopes.append(gzip.decompress(body).decode())
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: Any) -> None:
        """Say nothing."""


@pytest.fixture
def sentry() -> Iterator[Sentry]:
    """A real receiver."""
    with Sentry() as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()


def test_an_error_of_a_request_arrives_without_passwords(
    start_web: Callable[..., Web],  # noqa: F811
    sentry: Sentry,
    tmp_path: Path,
) -> None:
    web = start_web(
        SENTRY_DSN=sentry.dsn,
        BEHIND_TLS_PROXY="true",
        DATABASE_URL=ABSENT_DATABASE,
        BROKER_URL=absent_broker(tmp_path).replace("secret", SECRET),
    )
    headers = {"X-Forwarded-Proto": "https", "Cookie": f"sessionid={'a' * 32}"}
    assert web.get("/admin/", **headers)[0] == 500
    told = sentry.wait_for("OperationalError")
    assert "/admin/" in told
    assert SECRET not in told


@pytest.mark.promise("retries")  # which this test takes away
def test_an_error_of_a_task_arrives_without_passwords(start_worker: StartWorker, sentry: Sentry) -> None:
    start_worker(SENTRY_DSN=sentry.dsn, WITHOUT="retries", DATABASE_URL=ABSENT_DATABASE)
    write_report.delay(1)
    told = sentry.wait_for("OperationalError")
    assert "jobs.tasks.write_report" in told
    assert SECRET not in told


def test_an_error_of_a_task_arrives_without_its_arguments(start_worker: StartWorker, sentry: Sentry) -> None:
    start_worker(SENTRY_DSN=sentry.dsn, REDACT="tests.tasks.misbehave")
    settings.RELIABILITY["redact"] = ["tests.tasks.misbehave"]
    try:
        tasks.misbehave.delay("with an error", letter=SECRET)
    finally:
        settings.RELIABILITY["redact"] = []
    told = sentry.wait_for("on purpose")
    assert "tests.tasks.misbehave" in told
    assert SECRET not in told
