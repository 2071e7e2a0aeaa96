"""What is sent inside a transaction leaves after its commit, and never after a rollback."""

import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from celery import chain, group
from django.contrib.admin.models import CHANGE, LogEntry
from django.db import IntegrityError, connection, connections, transaction
from django.http import HttpRequest, HttpResponse
from django.test import Client
from django.urls import path

from config.celery import app
from jobs import tasks
from jobs.models import Report
from reliability import sending
from tests.brokers import absent_broker, application, received, received_ids
from tests.transactions import OnPurpose, committed_with, rolled_back

write_report: Any = tasks.write_report  # celery-types knows neither `using` nor `send_at_once`
pytestmark = [pytest.mark.promise("send_after_commit"), pytest.mark.usefixtures("broker")]


def test_outside_of_transactions_a_task_is_sent_at_once() -> None:
    result = write_report.delay(1)
    assert received_ids() == [result.id]


def test_sending_outside_of_transactions_needs_no_database() -> None:
    """A thread of its own has no connection, and gets none."""
    opened: list[Any] = []

    def send() -> None:
        write_report.delay(1)
        opened.append(connection.connection)

    thread = threading.Thread(target=send)
    thread.start()
    thread.join()
    assert opened == [None]
    assert len(received()) == 1


def test_a_task_leaves_after_the_commit_with_the_id_that_it_was_given() -> None:
    with transaction.atomic():
        report = Report.objects.create(title="Ants")
        result = write_report.delay(report.pk)
        chosen = write_report.apply_async((report.pk,), task_id="chosen")
        assert received() == []
    assert received_ids() == [result.id, "chosen"]
    assert chosen.id == "chosen"


def test_a_task_sent_in_a_rolled_back_transaction_never_runs() -> None:
    with rolled_back():
        write_report.delay(1)
    assert received() == []


@pytest.mark.parametrize("savepoint", [True, False])
def test_a_rolled_back_savepoint_takes_its_tasks_with_it(savepoint: bool) -> None:
    """Without a savepoint of its own the inner block takes the outer one with it."""
    with transaction.atomic():
        outer = write_report.delay(1)
        with rolled_back(savepoint=savepoint):
            write_report.delay(2)
    assert received_ids() == ([outer.id] if savepoint else [])


def test_tasks_of_nested_blocks_leave_with_the_outermost_commit() -> None:
    with transaction.atomic(durable=True):
        with transaction.atomic():
            inner = write_report.delay(1)
        outer = write_report.delay(2)
        assert received() == []
    assert received_ids() == [inner.id, outer.id]


def test_a_transaction_that_an_error_of_the_database_broke_sends_nothing() -> None:
    report = Report.objects.create(title="Ants")
    with suppress(IntegrityError), transaction.atomic():
        write_report.delay(report.pk)
        Report.objects.create(pk=report.pk, title="Bees")
        pytest.fail("two rows with one key")
    assert received() == []


def test_a_commit_that_the_database_refuses_sends_nothing() -> None:
    """It looks at foreign keys only then."""
    with committed_with(IntegrityError):
        LogEntry.objects.create(user_id=0, action_flag=CHANGE)
        write_report.delay(1)
    assert received() == []


def test_the_broker_is_not_asked_before_the_commit(tmp_path: Path) -> None:
    refused = application(absent_broker(tmp_path))
    with rolled_back():
        task = refused.signature("a.task")
        task.delay()
        group(task, task).apply_async()
        chain(task, task).apply_async(countdown=1)


def test_a_task_leaves_with_the_commit_of_a_transaction_without_atomic() -> None:
    """Django runs hooks only when autocommit is on again, and the next rollback would take them."""
    transaction.set_autocommit(False)
    try:
        kept = write_report.delay(1)
        with transaction.atomic():
            nested = write_report.delay(2)
        with rolled_back():
            write_report.delay(3)
        assert received() == []
        transaction.commit()
        assert received_ids() == [kept.id, nested.id]
        write_report.delay(4)
        transaction.rollback()
        transaction.commit()
        assert received() == []
    finally:
        transaction.rollback()
        transaction.set_autocommit(True)
    assert received() == []


def test_the_transaction_of_another_thread_holds_nothing_back() -> None:
    with transaction.atomic():
        thread = threading.Thread(target=write_report.delay, args=(1,))
        thread.start()
        thread.join()
        assert len(received()) == 1


def a_request(request: HttpRequest) -> HttpResponse:
    """A view that sends a task, and fails when it is asked to."""
    write_report.delay(1)
    assert received() == []
    if "fail" in request.GET:
        raise OnPurpose
    return HttpResponse()


urlpatterns = [path("", a_request)]


def test_with_atomic_requests_a_task_leaves_when_the_view_succeeds(
    monkeypatch: pytest.MonkeyPatch, settings: Any
) -> None:
    monkeypatch.setitem(connections.settings["default"], "ATOMIC_REQUESTS", True)
    settings.ROOT_URLCONF = __name__
    with pytest.raises(OnPurpose):
        Client().get("/?fail", secure=True)
    assert received() == []
    assert Client().get("/", secure=True).status_code == 200
    assert len(received()) == 1


@pytest.fixture
def other_database() -> Iterator[str]:
    """A second connection to the test database, as the alias `other`."""
    connections.settings["other"] = {**connections.settings["default"], "OPTIONS": {}}
    connections["other"].connect()
    yield "other"
    connections["other"].close()
    del connections["other"], connections.settings["other"]


def test_using_names_the_database_whose_transaction_counts(other_database: str) -> None:
    with transaction.atomic(using=other_database):
        at_once = write_report.delay(1)
        held_back = write_report.apply_async((2,), using=other_database)
        assert received_ids() == [at_once.id]
    assert received_ids() == [held_back.id]
    with rolled_back(using=other_database):
        write_report.apply_async((3,), using=other_database)
    assert received() == []


class WritesToOther:
    """A router that has all models written to the database `other`."""

    def db_for_write(self, _model: type, **_hints: Any) -> str:
        """Name it."""
        return "other"


def test_the_router_names_the_database_when_nobody_else_does(other_database: str, settings: Any) -> None:
    settings.DATABASE_ROUTERS = [f"{__name__}.WritesToOther"]
    with transaction.atomic(using=other_database):
        write_report.delay(1)
        assert received() == []
    assert len(received()) == 1


def test_a_task_can_be_sent_at_once() -> None:
    both: Any = group(write_report.s(3), write_report.s(4))
    with rolled_back():
        sent = [
            write_report.apply_async((1,), send_at_once=True),
            app.send_task("jobs.tasks.write_report", (2,), send_at_once=True),
            *both.apply_async(send_at_once=True),
            chain(write_report.si(5), write_report.si(6)).apply_async(send_at_once=True).parent,
            write_report.s(7).set(send_at_once=True).delay(),
        ]
        with sending.at_once():
            sent.append(write_report.delay(8))
    assert received_ids() == [result.id for result in sent]
