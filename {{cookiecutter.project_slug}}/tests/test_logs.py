"""What the logs tell of a task, from the request that sent it; and what they never tell."""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import structlog
from django.conf import settings
from django.test import Client

from accounts.models import User
from dev import BASE_DIR
from tests import tasks
from tests.brokers import absent_broker
from tests.harness import LONG, StartWorker, Worker, ask_worker, database_url, eventually

SECRET = "hunter2-in-clear"


@pytest.fixture
def request_id() -> Iterator[str]:
    """The id of a request, which what is sent meanwhile belongs to."""
    with structlog.contextvars.bound_contextvars(request_id="id-of-this-request"):
        yield "id-of-this-request"


def lines(worker: Worker, event: str, at_least: int = 1) -> list[dict[str, Any]]:
    """Return the log's lines of this event, once there are enough of them."""
    eventually(lambda: len(worker.events(event)) >= at_least, f"{at_least} of {event} in {worker.log}")
    return worker.events(event)


def test_a_page_leaves_its_id_with_the_tasks_that_it_sends(
    start_worker: StartWorker, caplog: pytest.LogCaptureFixture
) -> None:
    worker = start_worker()
    visitor = Client()
    visitor.force_login(User.objects.create_superuser("somebody"))
    page = visitor.post("/admin/jobs/report/add/", {"title": "Ants", "seconds": 0.1}, secure=True)
    assert page.status_code == 302
    told = [record.msg for record in caplog.records if isinstance(record.msg, dict)]
    (sent,) = (line for line in told if line["event"] == "task_enqueued")
    assert lines(worker, "task_succeeded")[0]["request_id"] == sent["request_id"]


@pytest.mark.promise("retries")
def test_the_id_follows_into_retries_and_says_why(start_worker: StartWorker, request_id: str) -> None:
    worker = start_worker()
    tasks.misbehave.delay("once")
    (done,) = lines(worker, "task_succeeded")
    (retried,) = lines(worker, "task_retrying")
    begun = lines(worker, "task_started", 2)
    assert {line["request_id"] for line in (done, retried, *begun)} == {request_id}
    assert [line["attempt"] for line in begun] == [1, 2]
    assert "on purpose" in str(retried["reason"])


def test_the_id_follows_into_what_a_task_sends(start_worker: StartWorker, request_id: str) -> None:
    worker = start_worker()
    tasks.send_another.delay()
    done = lines(worker, "task_succeeded", 2)
    assert {line["request_id"] for line in done} == {request_id}


def test_a_task_tells_its_start_end_duration_wait_and_queue(start_worker: StartWorker) -> None:
    worker = start_worker("--concurrency", "1", "--prefetch-multiplier", "1")
    first = tasks.take.delay(1)
    eventually(lambda: tasks.runs(first.id), "the first one to begin")
    sent = tasks.take.delay(0.2)
    done = {line["task_id"]: line for line in lines(worker, "task_succeeded", 2)}
    begun = {line["task_id"]: line for line in lines(worker, "task_started", 2)}
    assert begun[sent.id]["task"] == "tests.tasks.take"
    assert done[sent.id]["queue"] == "celery"
    assert 200 <= done[sent.id]["duration_ms"] < 10_000
    assert 300 <= done[sent.id]["wait_ms"] < 60_000
    assert begun[sent.id]["timestamp"] < done[sent.id]["timestamp"]


def test_a_countdown_is_no_wait(start_worker: StartWorker) -> None:
    worker = start_worker()
    tasks.take.apply_async((0,), countdown=2)
    (done,) = lines(worker, "task_succeeded")
    assert done["wait_ms"] < 1900


@pytest.mark.parametrize(
    "how", ["not at all", "with an error", "once", "by rejecting it", "until the hard limit"]
)
def test_redacted_arguments_are_nowhere(start_worker: StartWorker, how: str) -> None:
    worker = start_worker(REDACT="tests.tasks.misbehave")
    settings.RELIABILITY["redact"] = ["tests.tasks.misbehave"]
    try:
        tasks.misbehave.delay(how, secret=SECRET)
    finally:
        settings.RELIABILITY["redact"] = []
    ends = ("task_succeeded", "task_failed", "Dead letter", "Hard time limit", "task_rejected")
    eventually(lambda: any(end in worker.log.read_text() for end in ends), "its end")
    assert SECRET not in worker.log.read_text()


def test_inspect_shows_no_redacted_arguments(start_worker: StartWorker) -> None:
    """Of a task that runs; Flower asks in the same way."""
    start_worker(REDACT="tests.tasks.misbehave")
    settings.RELIABILITY["redact"] = ["tests.tasks.misbehave"]
    try:
        tasks.misbehave.apply_async(("until the hard limit",), {"secret": SECRET}, **LONG)
    finally:
        settings.RELIABILITY["redact"] = []
    shown = eventually(lambda: "misbehave" in (told := str(ask_worker("active"))) and told, "the task to run")
    assert "redacted" in shown
    assert SECRET not in shown


def test_urls_show_no_password(start_worker: StartWorker, tmp_path: Path) -> None:
    """Not at the start, and not while a server is away."""
    url = absent_broker(tmp_path).replace("secret", SECRET)
    worker = start_worker(BROKER_URL=url, LOG_LEVEL="DEBUG")
    eventually(lambda: "Trying again" in worker.log.read_text(), "the worker to miss its broker")
    assert SECRET not in worker.log.read_text()


def test_a_start_that_fails_shows_no_password() -> None:
    environment = {**os.environ, "DATABASE_URL": database_url(), "BROKER_URL": f"ftp://:{SECRET}@nowhere:1/0"}
    command = [sys.executable, "-m", "celery", "-A", "config", "worker"]
    done = subprocess.run(command, cwd=BASE_DIR, env=environment, capture_output=True, text=True)
    assert done.returncode != 0
    assert SECRET not in done.stdout + done.stderr


def test_development_reads_well(start_worker: Callable[..., Worker]) -> None:
    worker = start_worker(DEBUG="true")
    tasks.misbehave.delay("not at all")
    eventually(lambda: "task_succeeded" in worker.log.read_text(), "its end")
    assert not worker.events("task_succeeded")  # for people, no JSON
