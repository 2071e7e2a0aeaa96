"""What the sender of a task sees when a server is away."""

import os
import socket
import subprocess
import sys
from collections.abc import Iterator

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
@pytest.fixture(params=["refused", "silent"])
def dead_broker(request: pytest.FixtureRequest) -> Iterator[str]:
    """The URL of a broker that refuses connections, or accepts them and never says a word."""
    with socket.socket() as server:
        if request.param == "silent":
            server.bind(("127.0.0.1", 0))
            server.listen()
            yield BROKER_URL.format(port=server.getsockname()[1])
        else:
            yield BROKER_URL.format(port=free_port())


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


def test_publishing_fails_soon(dead_broker: str) -> None:
    """The caller gets an error. Without the timeouts it would wait for ever."""
    result = send(BROKER_URL=dead_broker)
    assert result.returncode == 1
    assert "kombu.exceptions.OperationalError" in result.stderr


@pytest.mark.usefixtures("servers")
def test_a_dead_result_backend_does_not_stop_publishing() -> None:
    """As long as the task ignores its result, nobody talks to the backend."""
    backend = f"app.conf.result_backend = 'redis://127.0.0.1:{free_port()}/0'"
    assert send(backend).returncode == 0
    once = "app.conf.result_backend_transport_options = dict(retry_policy=dict(max_retries=0))"
    asked = send(f"{backend}; {once}; app.conf.task_ignore_result = False")
    assert asked.returncode == 1, "the backend is not dead, so the line above proves nothing"
