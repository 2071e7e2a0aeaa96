"""The fixtures for tests of code that sends tasks."""

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest
from celery import chain, group, shared_task
from django.core.cache import cache
from django.db import transaction

from config.celery import app
from jobs import tasks
from jobs.models import Report
from reliability import testing
from reliability.testing import SentTask, SentTasks
from tests.brokers import received
from tests.harness import empty_broker

write_report: Any = tasks.write_report
RunSentTasks = Callable[[], int]


def ask_for_report(title: str) -> Report:
    """What a project's own code does."""
    with transaction.atomic():
        report = Report.objects.create(title=title)
        write_report.delay(report.pk)
    return report


@pytest.mark.django_db
def test_the_example_in_the_readme(sent_tasks: SentTasks, run_sent_tasks: RunSentTasks) -> None:
    report = ask_for_report("Ants")
    assert [task.name for task in sent_tasks] == ["jobs.tasks.write_report"]
    assert sent_tasks[0].args == (report.pk,)
    assert run_sent_tasks() == 1
    report.refresh_from_db()
    assert report.text == "All about Ants."


@pytest.mark.promise("send_after_commit")
@pytest.mark.django_db
def test_what_an_open_transaction_would_send_is_seen(sent_tasks: SentTasks) -> None:
    write_report.delay(1)
    with transaction.atomic():
        write_report.delay(2)
        with transaction.atomic():
            write_report.delay(3)
            transaction.set_rollback(True)
        assert [task.args for task in sent_tasks] == [(1,), (2,)]


@pytest.mark.promise("send_after_commit")
@pytest.mark.django_db
def test_what_a_transaction_would_not_send_is_not_seen(sent_tasks: SentTasks) -> None:
    """pytest-django's own transaction goes on."""
    with transaction.atomic():
        write_report.delay(1)
        transaction.set_rollback(True)
    assert list(sent_tasks) == []
    with transaction.atomic():
        write_report.delay(2)
        transaction.set_rollback(True)
        assert len(sent_tasks) == 0


@pytest.mark.promise("send_after_commit")
@pytest.mark.django_db(transaction=True)
def test_what_was_sent_is_seen_and_reaches_no_broker(sent_tasks: SentTasks) -> None:
    empty_broker()
    first = write_report.delay(1)
    with transaction.atomic():
        second = write_report.delay(2)
        third = write_report.apply_async((3,), send_at_once=True)
        assert [task.id for task in sent_tasks] == [first.id, third.id, second.id]
    group(write_report.s(4), write_report.s(5))()
    app.send_task("of.another.project", (6,))
    assert [task.args for task in sent_tasks] == [(1,), (3,), (2,), (4,), (5,), (6,)]
    assert received() == []


@pytest.mark.parametrize("send_at_once", [True, False])
@pytest.mark.django_db
def test_options_are_those_of_the_call(sent_tasks: SentTasks, send_at_once: bool) -> None:
    write_report.apply_async((1,), countdown=60, queue="long", task_id="chosen", send_at_once=send_at_once)
    (sent,) = sent_tasks
    assert isinstance(sent, SentTask)
    assert sent.id == "chosen"
    assert sent.options["countdown"] == 60
    assert sent.options["queue"] == "long"


@shared_task
def keep(*values: Any) -> list[Any]:
    """Keep what it was given."""
    cache.set("noted", [*cache.get("noted", []), *values])
    return list(values)


note: Any = keep  # celery-types does not know `send_at_once`


@shared_task
def note_twice(value: Any) -> None:
    """Send a task, in a transaction of its own."""
    note(f"{value} sends")
    with transaction.atomic():
        note.delay(value)


@shared_task(bind=True, max_retries=3)
def note_at_last(self: Any, tries: int) -> None:
    """Succeed at this try."""
    note(self.request.retries)
    if self.request.retries < tries:
        raise self.retry(countdown=3600)


@shared_task
def fail() -> None:
    """Fail."""
    raise ValueError("on purpose")


@shared_task
def repeat() -> None:
    """Send itself."""
    repeat.delay()


def noted() -> list[Any]:
    """Return what the tasks noted, and forget it."""
    values: list[Any] = cache.get("noted", [])
    cache.delete("noted")
    return values


@pytest.mark.django_db
def test_arguments_have_been_json(sent_tasks: SentTasks, run_sent_tasks: RunSentTasks) -> None:
    values = [(1, 2)]
    day = datetime(2026, 1, 2, tzinfo=UTC)
    for send_at_once in (True, False):
        note.apply_async((values, day), send_at_once=send_at_once)
    values.append((3, 4))
    assert [task.args for task in sent_tasks] == [([[1, 2]], day)] * 2
    run_sent_tasks()
    assert noted() == [[[1, 2]], day] * 2


@pytest.mark.django_db
def test_tasks_run_in_order_and_once_with_those_that_they_send(run_sent_tasks: RunSentTasks) -> None:
    note_twice.delay("first")
    note.delay("second")
    assert run_sent_tasks() == 3
    assert noted() == ["first sends", "second", "first"]
    note.delay("third")
    assert run_sent_tasks() == 1
    assert noted() == ["third"]
    assert run_sent_tasks() == 0


@pytest.mark.django_db
def test_links_and_chains_run(run_sent_tasks: RunSentTasks) -> None:
    note.apply_async((1,), link=note.s(2))
    chain(note.s("a"), note.s("b"), group(note.s("c"), note.s("d")))()
    assert run_sent_tasks() == 6
    assert noted() == [1, "a", [1], 2, ["a"], "b", [["a"], "b"], "c", [["a"], "b"], "d"]


@pytest.mark.django_db
def test_retries_run_at_once_and_are_limited(run_sent_tasks: RunSentTasks) -> None:
    note_at_last.delay(2)
    assert run_sent_tasks() == 1
    assert noted() == [0, 1, 2]
    note_at_last.delay(99)
    with pytest.raises(note_at_last.MaxRetriesExceededError):
        run_sent_tasks()
    assert noted() == [0, 1, 2, 3]


@pytest.mark.django_db
def test_an_error_reaches_the_test(run_sent_tasks: RunSentTasks) -> None:
    fail.delay()
    with pytest.raises(ValueError, match="on purpose"):
        run_sent_tasks()


@pytest.mark.django_db
def test_what_cannot_run_here_says_so(run_sent_tasks: RunSentTasks, monkeypatch: pytest.MonkeyPatch) -> None:
    app.send_task("of.another.project")
    with pytest.raises(LookupError, match="knows no such task"):
        run_sent_tasks()
    app.send_task(note.name, (1,), chord=note.s())
    with pytest.raises(NotImplementedError, match="result backend"):
        run_sent_tasks()
    monkeypatch.setattr(testing, "MOST_TASKS", 10)
    repeat.delay()
    with pytest.raises(RuntimeError, match="for ever"):
        run_sent_tasks()
