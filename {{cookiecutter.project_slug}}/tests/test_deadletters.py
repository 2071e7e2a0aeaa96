"""What cannot run is kept: every way to fail becomes a row, and the worker goes on."""

import json
from pathlib import Path
from typing import Any

import pytest
from billiard.einfo import ExceptionInfo
from celery import Task
from celery.worker import state
from kombu import Connection
from kombu.message import Message
from pytest_django.fixtures import Settings

from config.celery import app
from dev.processes import free_port
from jobs.tasks import delete_old_reports
from reliability.models import DeadLetter
from reliability.request import Request
from tests import tasks
from tests.brokers import absent_broker, application
from tests.harness import StartWorker, eventually

pytestmark = pytest.mark.promise("dead_letters")


def the_letter(task_id: str) -> DeadLetter:
    """Return the dead letter of this task, once it is there."""
    eventually(DeadLetter.objects.filter(task_id=task_id).exists, f"a dead letter of {task_id}")
    return DeadLetter.objects.get(task_id=task_id)


def assert_still_working() -> None:
    """The worker that is running takes the next task and runs it."""
    done = tasks.misbehave.delay("not at all")
    eventually(lambda: tasks.runs(done.id), "the next task runs")


def test_a_task_that_fails_is_kept_with_all_that_one_needs_to_know(start_worker: StartWorker) -> None:
    start_worker()
    sent = tasks.misbehave.delay("with an error", times=[1, 2])
    letter = the_letter(sent.id)
    assert letter.reason == "failed"
    assert letter.task == "tests.tasks.misbehave"
    assert letter.error == "ValueError: on purpose"
    assert "raise ValueError" in letter.traceback
    assert letter.args == '["with an error"]'
    assert letter.kwargs == '{"times": [1, 2]}'
    assert letter.queue == "celery"
    assert letter.worker.startswith("celery@")
    assert letter.sent_at
    assert letter.sent_at <= letter.failed_at
    assert_still_working()


@pytest.mark.parametrize("how", ["until the soft limit", "until the hard limit"])
def test_a_task_that_takes_too_long_is_kept(how: str, start_worker: StartWorker) -> None:
    start_worker()
    letter = the_letter(tasks.misbehave.delay(how).id)
    assert letter.reason == "time_limit"
    assert "TimeLimitExceeded" in letter.error
    assert_still_working()


@pytest.mark.parametrize("task", [tasks.deadly, tasks.greedy], ids=["killed", "out of memory"])
def test_a_task_that_costs_its_process_each_time_is_kept(task: Task, start_worker: StartWorker) -> None:
    """Only after its retries: the first death may be somebody else's fault."""
    start_worker()
    sent = task.delay()
    letter = the_letter(sent.id)
    assert letter.reason == "worker_lost"
    assert tasks.runs(sent.id) == 1 + 1  # max_retries=1
    assert_still_working()


def test_a_task_that_rejects_its_message_is_kept(start_worker: StartWorker) -> None:
    start_worker()
    assert the_letter(tasks.misbehave.delay("by rejecting it").id).reason == "rejected"
    assert_still_working()


def test_a_failure_after_which_celery_rejects_the_message_is_kept_once(start_worker: StartWorker) -> None:
    worker = start_worker()
    sent = tasks.unacknowledged.delay()
    letter = the_letter(sent.id)
    assert_still_working()
    assert worker.log.read_text().count(f"Dead letter: tests.tasks.unacknowledged[{sent.id}]") == 1
    assert (letter.reason, letter.failures) == ("failed", 1)
    assert "raise ValueError" in letter.traceback


def test_what_celery_is_told_to_put_back_at_the_hard_limit_is_not_kept(start_worker: StartWorker) -> None:
    start_worker()
    sent = tasks.persistent.delay()
    eventually(lambda: tasks.runs(sent.id) == 1 + 1, "the second run")
    assert_still_working()
    assert not DeadLetter.objects.exists()


def test_a_failure_that_cannot_be_kept_goes_back_and_runs_no_more(tmp_path: Path) -> None:
    """Celery's lists of what runs hold nothing of it, or a worker that is to end would wait for it."""
    elsewhere: Any = application(absent_broker(tmp_path))
    sent = elsewhere.amqp.create_task_message("an-id", tasks.misbehave.name, ("not at all",), {})
    body = json.dumps(sent.body)
    put_back: list[bool] = []
    request = Request(
        Message(body=body, headers=sent.headers, content_type="application/json", content_encoding="utf-8"),
        on_reject=lambda _logger, _errors, requeue: put_back.append(requeue),
        app=elsewhere,
        task=elsewhere.task(tasks.misbehave.run, name=tasks.misbehave.name),
        body=body,
        headers=sent.headers,
        hostname="celery@tests",
    )
    state.task_accepted(request)
    try:
        raise ValueError("on purpose")
    except ValueError:
        request.on_failure(ExceptionInfo())
    assert put_back == [True]
    assert request not in state.active_requests
    assert "an-id" not in state.requests


def test_an_unknown_task_is_kept_when_nobody_came_to_know_it(start_worker: StartWorker) -> None:
    start_worker(WITHOUT="unknown_tasks")
    letter = the_letter(app.send_task("tests.tasks.no_such_task", ["a"], {"b": 1}).id)
    assert letter.reason == "unknown_task"
    assert (letter.args, letter.kwargs) == ('["a"]', '{"b": 1}')
    assert_still_working()


def test_arguments_that_the_task_does_not_take_are_kept(start_worker: StartWorker) -> None:
    start_worker(WITHOUT="unknown_tasks")
    letter = the_letter(app.send_task("tests.tasks.misbehave", [], {"by": "another name"}).id)
    assert letter.reason == "wrong_signature"
    assert "missing 1 required positional argument: 'how'" in letter.error
    assert_still_working()


def test_a_message_that_nobody_can_read_is_kept(start_worker: StartWorker) -> None:
    start_worker()
    with app.connection_for_write() as connection:
        publish(connection, b"\xff\xfe{", headers={"task": "tests.tasks.misbehave", "id": "unreadable"})
        publish(connection, b"{}", headers={})
    letter = the_letter("unreadable")
    assert letter.reason == "undecodable"
    assert letter.body_encoding == "base64"
    eventually(lambda: DeadLetter.objects.count() == 2, "the message without headers is kept too")
    assert_still_working()


def publish(connection: Connection, body: bytes, headers: dict[str, str]) -> None:
    """Put a message on the queue as it is."""
    connection.Producer().publish(
        body, routing_key="celery", content_type="application/json", content_encoding="utf-8", headers=headers
    )


def test_while_the_database_is_away_dead_letters_wait_in_the_broker(start_worker: StartWorker) -> None:
    """And the task is not run again for it."""
    away = start_worker(DATABASE_URL=f"postgres://app@127.0.0.1:{free_port()}/app")
    sent = tasks.misbehave.delay("with an error")
    away.wait_for(f"Dead letter: tests.tasks.misbehave[{sent.id}]")
    away.wait_for("reliability.tasks.store_dead_letter")
    away.process.terminate()
    away.process.wait(60)
    assert not DeadLetter.objects.exists()
    start_worker()
    assert the_letter(sent.id).failures == 1
    assert tasks.runs(sent.id) == 1


def test_the_arguments_of_a_redacted_task_appear_nowhere(
    start_worker: StartWorker, settings: Settings
) -> None:
    settings.RELIABILITY = settings.RELIABILITY | {"redact": ["tests.tasks.misbehave"]}
    worker = start_worker(REDACT="tests.tasks.misbehave", LOG_LEVEL="DEBUG")
    silent = the_letter(tasks.misbehave.delay("with an error", password="hunter2").id)
    assert silent.error == "ValueError"
    assert not silent.complete
    assert "hunter2" not in worker.log.read_text()
    talkative = the_letter(tasks.misbehave.delay("by saying what it knows", password="hunter2").id)
    shown = [str(getattr(talkative, field.attname)) for field in DeadLetter._meta.fields]
    assert "hunter2" not in " ".join(shown)


def test_the_arguments_of_a_redacted_link_appear_nowhere(start_worker: StartWorker) -> None:
    """They stand in the message of the task before it."""
    start_worker(REDACT="tests.tasks.misbehave")
    sent = tasks.unacknowledged.apply_async(link=tasks.misbehave.si("not at all", password="hunter2"))
    letter = the_letter(sent.id)
    assert "hunter2" not in " ".join(str(getattr(letter, field.attname)) for field in DeadLetter._meta.fields)
    assert not letter.complete


@pytest.mark.promise("retries")
def test_a_retry_is_no_dead_letter(start_worker: StartWorker) -> None:
    start_worker()
    retried = tasks.misbehave.delay("once")
    eventually(lambda: tasks.runs(retried.id) == 2, "the second run")
    assert_still_working()
    assert not DeadLetter.objects.exists()


def test_an_expired_task_is_no_dead_letter(start_worker: StartWorker) -> None:
    worker = start_worker()
    expired = delete_old_reports.apply_async(expires=-1)
    worker.wait_for(f"Discarding revoked task: jobs.tasks.delete_old_reports[{expired.id}]")
    assert_still_working()
    assert not DeadLetter.objects.exists()
