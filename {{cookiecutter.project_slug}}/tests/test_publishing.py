"""What the sender of a task sees when a server is away."""

import os
import socketserver
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from dev import BASE_DIR
from dev.processes import free_port
from tests.harness import PATIENCE

SEND = """
import django; django.setup()
from config.celery import app; {setting}
from jobs.tasks import delete_old_reports; delete_old_reports.delay()
"""
# jinja: if cookiecutter.broker == "redis"
BROKER_URL = "redis://127.0.0.1:{port}/0"


# jinja: else
BROKER_URL = "amqp://app:secret@127.0.0.1:{port}//"


# jinja: endif
class DeadBroker(socketserver.ThreadingTCPServer):
    """Accepts connections and counts them; then never says a word, or breaks them off."""

    daemon_threads = True
    connections = 0

    def __init__(self, *, silent: bool) -> None:
        super().__init__(("127.0.0.1", 0), socketserver.BaseRequestHandler)
        self.silent = silent

    def finish_request(self, request: Any, client_address: Any) -> None:
        self.connections += 1
        while self.silent and request.recv(4096):
            pass


@contextmanager
def dead_broker(*, silent: bool) -> Iterator[DeadBroker]:
    """Run one."""
    with DeadBroker(silent=silent) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def send(setting: str = "pass", **environment: str) -> subprocess.CompletedProcess[str]:
    """Send a task from a process of its own; TimeoutExpired when that hangs."""
    return subprocess.run(
        [sys.executable, "-c", SEND.format(setting=setting)],
        cwd=BASE_DIR,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )


def test_publishing_to_a_broker_that_refuses_fails() -> None:
    result = send(BROKER_URL=BROKER_URL.format(port=free_port()))
    assert result.returncode == 1
    assert "kombu.exceptions.OperationalError" in result.stderr


def test_publishing_to_a_silent_broker_fails() -> None:
    """Without the timeouts it would wait for ever."""
    with dead_broker(silent=True) as server:
        result = send(BROKER_URL=BROKER_URL.format(port=server.server_address[1]))
    assert server.connections > 0
    assert result.returncode == 1
    assert "kombu.exceptions.OperationalError" in result.stderr


def test_publishing_is_tried_once_more() -> None:
    """When the connection breaks off. Celery's default is three times more."""
    with dead_broker(silent=False) as server:
        result = send(BROKER_URL=BROKER_URL.format(port=server.server_address[1]))
    assert result.returncode == 1
    assert server.connections == 2


@pytest.mark.usefixtures("servers")
def test_a_dead_result_backend_does_not_stop_publishing() -> None:
    """As long as the task ignores its result, nobody talks to the backend."""
    backend = f"app.conf.result_backend = 'redis://127.0.0.1:{free_port()}/0'"
    assert send(backend).returncode == 0
    once = "app.conf.result_backend_transport_options = dict(retry_policy=dict(max_retries=0))"
    asked = send(f"{backend}; {once}; app.conf.task_ignore_result = False")
    assert asked.returncode == 1, "the backend is not dead, so the line above proves nothing"
