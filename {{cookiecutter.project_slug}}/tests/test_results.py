"""A result backend that is away: what a task that wants its result costs its sender."""

import json
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager

import pytest

from dev import BASE_DIR
from dev.processes import free_port
from tests.harness import PATIENCE

SEND = """
import json, sys, time
import celery.backends.redis  # before the clock starts
import django; django.setup()
from config.celery import app
app.conf.result_backend = sys.argv[1]
from jobs.tasks import delete_old_reports

for ignored in (True, False, False, True):
    begun = time.monotonic()
    try:
        delete_old_reports.apply_async(ignore_result=ignored)
        error = ""
    except Exception as raised:
        error = str(raised)
    print(json.dumps([error, time.monotonic() - begun]), flush=True)
"""


@contextmanager
def dead() -> Iterator[int]:
    """Give a port where nobody listens."""
    yield free_port()


@contextmanager
def frozen() -> Iterator[int]:
    """Give a port whose owner accepts connections, and says nothing."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        yield silent.getsockname()[1]


@contextmanager
def unreachable() -> Iterator[int]:
    """Give a port that answers to no attempt to connect, as a host does that is gone: its backlog is full."""
    with socket.create_server(("127.0.0.1", 0), backlog=0) as full, ExitStack() as fillers:
        for _ in range(3):
            filler = fillers.enter_context(socket.socket())
            filler.setblocking(False)
            filler.connect_ex(full.getsockname())
        yield full.getsockname()[1]


@pytest.mark.usefixtures("servers")
@pytest.mark.parametrize("backend", [dead, frozen, unreachable])
def test_a_backend_that_is_away_holds_a_sender_up_for_a_second_at_most(
    backend: Callable[[], AbstractContextManager[int]],
) -> None:
    """Who wants the result learns that nobody would keep it; who does not is not even asked."""
    with backend() as port:
        ended = subprocess.run(
            [sys.executable, "-c", SEND, f"redis://127.0.0.1:{port}/0"],
            cwd=BASE_DIR,
            check=True,
            capture_output=True,
            text=True,
            timeout=PATIENCE,
        )
    outcomes = [json.loads(line) for line in ended.stdout.splitlines()]
    assert ["result store" in error for error, _ in outcomes] == [False, True, True, False]
    assert max(seconds for _, seconds in outcomes) < 1
