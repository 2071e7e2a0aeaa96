"""What other hooks and other errors do to the tasks of a commit, and these to them."""

import time
from pathlib import Path
from typing import Any

import pytest
from django.db import transaction
from django.test import TestCase

from config.celery import app as default_app
from dev.processes import free_port
from jobs import tasks
from jobs.models import Report
from reliability.publishing import TaskMaybeSent, TaskNotSent
from tests.brokers import Broker, absent_broker, application, received, received_ids
from tests.transactions import OnPurpose, committed_with

write_report: Any = tasks.write_report
pytestmark = [pytest.mark.promise("send_after_commit"), pytest.mark.usefixtures("broker")]


def fail() -> None:
    """A hook of somebody's."""
    raise OnPurpose


def test_a_hook_that_raises_swallows_no_task() -> None:
    """Django runs no hook after one that raised."""
    with committed_with(OnPurpose):
        before = write_report.delay(1)
        transaction.on_commit(fail)
        after = write_report.delay(2)
    assert received_ids() == [before.id, after.id]


def test_hooks_run_in_the_order_that_they_were_given() -> None:
    order: list[Any] = []
    with transaction.atomic():
        transaction.on_commit(lambda: order.append("first"))
        sent = write_report.delay(1)
        transaction.on_commit(lambda: order.extend(received_ids()))
    assert order == ["first", sent.id]


def test_a_hook_sends_at_once_or_with_a_transaction_of_its_own() -> None:
    def send() -> None:
        write_report.apply_async((1,), task_id="at once")
        with transaction.atomic():
            write_report.apply_async((2,), task_id="after")
            assert received_ids() == ["at once"]

    with transaction.atomic():
        transaction.on_commit(send)
    assert received_ids() == ["after"]


@pytest.mark.promise("publish_errors")
def test_an_error_after_the_commit_names_every_task(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Other hooks run, and so do tasks of another broker."""
    refused = application(absent_broker(tmp_path))
    ran: list[str] = []
    with committed_with(TaskNotSent) as raised:
        Report.objects.create(title="Ants")
        before = write_report.delay(1)
        lost = [refused.send_task("a.task", (number,)) for number in range(3)]
        after = write_report.delay(2)
        transaction.on_commit(lambda: ran.append("hook"))
    assert Report.objects.exists(), "the error came before the commit"
    assert received_ids() == [before.id, after.id]
    assert ran == ["hook"]
    assert raised.value.task_id == lost[0].id
    for task in lost:
        assert f"a.task[{task.id}]" in str(raised.value)
        assert any(task.id in record.getMessage() for record in caplog.records)


@pytest.mark.promise("publish_errors")
def test_a_commit_waits_for_a_frozen_broker_as_long_as_one_task_does(other_broker: Broker) -> None:
    other_broker.app.send_task("a.task")  # opens the connection
    begun = time.monotonic()
    with other_broker.frozen(), committed_with(TaskMaybeSent) as raised:
        tasks = [other_broker.app.send_task("a.task") for _ in range(10)]
    assert time.monotonic() - begun < 7
    assert all(task.id in str(raised.value) for task in tasks)


@pytest.mark.promise("publish_errors")
def test_a_dead_result_backend_concerns_no_task_that_ignores_its_result() -> None:
    """And is asked once: the others that want a result are named."""
    app = application(str(default_app.conf.broker_url))
    app.conf.update(result_backend=f"redis://127.0.0.1:{free_port()}/0")
    with committed_with(TaskNotSent) as raised:
        wanted = [app.send_task("a.task") for _ in range(3)]
        sent = [app.send_task("a.task", ignore_result=True), write_report.delay(1)]
    assert received_ids() == [task.id for task in sent]
    assert all(task.id in str(raised.value) for task in wanted)
    assert str(raised.value).count("the result backend had just failed to take another") == 2


def test_the_error_of_one_task_concerns_no_other() -> None:
    with committed_with(TypeError):
        write_report.apply_async((1,), headers=5)
        sent = write_report.delay(2)
    assert received_ids() == [sent.id]


def test_hooks_that_a_test_captures_send_each_task_once() -> None:
    """Django's way to see hooks in a test: it runs them early, and leaves them in the list."""
    with transaction.atomic():
        with TestCase.captureOnCommitCallbacks(execute=True) as hooks:
            transaction.on_commit(lambda: None)
            sent = write_report.delay(1)
        assert len(hooks) == 2
        assert received_ids() == [sent.id]
    assert received() == []
