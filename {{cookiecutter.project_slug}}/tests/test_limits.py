"""Time limits, and the graces of the deployment that they must fit into."""

import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from django.core.checks import ERROR

from config import celeryconfig
from config.celery import app
from dev import BASE_DIR
from reliability import limits
from tests import tasks
from tests.harness import PATIENCE, StartWorker, empty_broker, eventually, waiting_messages
from tests.test_worker import order, wait_until_finished

LONG = celeryconfig.LONG_TIME_LIMIT
MOST = LONG or celeryconfig.task_time_limit  # seconds; the longest limit that any worker can hold
START = """
from celery import shared_task
from {module} import {function}

@shared_task(name="tests.wrong", time_limit={limit})
def wrong():
    pass

{function}()
"""
only_with_long_workers = pytest.mark.skipif(LONG is None, reason="this platform has no long workers")


@contextmanager
def declared(**options: Any) -> Iterator[Any]:
    """Declare one more task for a while."""

    def extra() -> None:
        pass

    declare: Any = app.task(name="tests.extra", shared=False, lazy=False, **options)
    try:
        yield declare(extra)
    finally:
        app.tasks.unregister("tests.extra")


def mistakes() -> dict[str | None, str]:
    """Return what the check says, by its id."""
    return {found.id: f"{found.msg} {found.hint}" for found in limits.check_limits()}


def errors() -> list[str | None]:
    """Return the ids of what stops a worker."""
    return [found.id for found in limits.check_limits() if found.level >= ERROR]


@pytest.mark.promise("check_limits")
@pytest.mark.parametrize(
    ("options", "number", "says"),
    [
        pytest.param({"time_limit": 0}, "E012", "time_limit=0", id="none at all"),
        pytest.param({"soft_time_limit": MOST + 1}, "E012", "soft one below", id="soft above hard"),
        pytest.param({"time_limit": MOST + 1}, "E013", f"grace to {MOST + 11} s", id="above every grace"),
    ],
)
def test_limits_that_no_worker_can_hold_are_refused(options: dict[str, int], number: str, says: str) -> None:
    assert errors() == []
    with declared(**options):
        found = mistakes()
    assert f"reliability.{number}" in found
    assert "tests.extra" in found[f"reliability.{number}"]
    assert says in found[f"reliability.{number}"]


@pytest.mark.promise("check_limits")
@only_with_long_workers
@pytest.mark.filterwarnings("ignore::celery.exceptions.CDeprecationWarning")
def test_a_long_task_that_names_another_queue_is_refused() -> None:
    with declared(time_limit=LONG, queue="celery"):
        assert "tests.extra may run" in mistakes()["reliability.E014"]


@pytest.mark.promise("check_limits")
@pytest.mark.parametrize(
    ("setting", "value", "number"),
    [("task_time_limit", None, "E010"), ("worker_soft_shutdown_timeout", 1, "E011")],
)
def test_settings_that_leave_tasks_no_time_are_refused(
    setting: str, value: int | None, number: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(app.conf, setting, value)
    assert errors() == [f"reliability.{number}"]


# jinja: if cookiecutter.broker == "redis"
@pytest.mark.promise("check_limits")
def test_a_visibility_timeout_below_the_longest_run_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(app.conf, "broker_transport_options", {"visibility_timeout": 2 * MOST - 1})
    assert errors() == ["reliability.E015"]


@pytest.mark.promise("check_limits")
def test_a_retry_that_waits_longer_than_the_visibility_timeout_is_named() -> None:
    longest = 2 * 10**12  # longer than tests.tasks.deadly_once, whose delay counts when `retries` is off
    with declared(default_retry_delay=longest, retry_backoff=False):
        assert "tests.extra may wait 2e+12 s" in mistakes()["reliability.W016"]


# jinja: endif
@pytest.mark.promise("check_limits")
@pytest.mark.parametrize(
    ("module", "function", "arguments"),
    [
        ("django.core.management", "execute_from_command_line", "check"),
        ("celery.__main__", "main", "-A config worker"),
        ("celery.__main__", "main", "-A config beat"),
    ],
    ids=["check", "worker", "beat"],
)
def test_nothing_starts_with_a_wrong_limit(module: str, function: str, arguments: str) -> None:
    """It ends before it connects, with a line that says what is wrong and no traceback."""
    code = START.format(module=module, function=function, limit=MOST + 1)
    ended = subprocess.run(
        [sys.executable, "-c", code, *arguments.split()],
        cwd=BASE_DIR,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )
    assert ended.returncode == 1
    (line,) = [line for line in ended.stderr.splitlines() if "reliability.E013" in line]
    assert "tests.wrong may run" in line
    assert "Traceback" not in ended.stderr


def test_the_limits_of_a_task_travel_with_its_message(servers: None) -> None:
    """One that declares only a hard limit gets the soft one that belongs to it."""
    with declared(time_limit=2) as task:
        assert task.soft_time_limit == limits.soft_limit(2) == 1
        headers = sent_headers(task)
    assert headers["timelimit"] == [2, 1]


def sent_headers(task: Any) -> dict[str, Any]:
    """Send the task and take its message from the broker."""
    empty_broker()
    task.delay()
    with app.connection_for_read() as connection:
        message: Any = app.amqp.queues["celery"](connection.default_channel).get(no_ack=True)
    headers: dict[str, Any] = message.headers
    return headers


@only_with_long_workers
def test_a_task_with_a_long_limit_waits_for_a_long_worker(start_worker: StartWorker) -> None:
    start_worker("-X", "long")
    sent = tasks.lengthy.delay()
    wait_until_finished(order())
    assert waiting_messages("long") == 1
    assert not tasks.ended(sent.id)
    start_worker("-Q", "long")
    eventually(lambda: tasks.ended(sent.id), "the end of the task")


@only_with_long_workers
@pytest.mark.promise("drain")
def test_a_long_worker_has_its_grace_to_finish(start_worker: StartWorker) -> None:
    """The task takes longer than an ordinary worker has."""
    worker = start_worker("-Q", "long", LONG_STOP_GRACE="30")
    sent = app.send_task("tests.tasks.lengthy", [5], queue="long", time_limit=20, soft_time_limit=19)
    eventually(lambda: tasks.runs(sent.id), "the begin of the task")
    worker.process.send_signal(signal.SIGTERM)
    worker.process.wait(PATIENCE)
    assert tasks.ended(sent.id)
    assert tasks.runs(sent.id) == 1
