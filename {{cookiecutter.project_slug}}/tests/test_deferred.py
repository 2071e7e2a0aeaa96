"""A message that leaves after the commit says what it would have said at the call."""

import json
import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import pytest
import structlog
from celery import chain, group
from celery.signals import before_task_publish
from django.core.cache import cache
from django.db import connection, transaction
from kombu.message import Message

from config.celery import app
from jobs import tasks
from tests import senders
from tests.brokers import Broker, received, received_ids
from tests.harness import StartWorker, eventually
from tests.tasks import runs
from tests.transactions import rolled_back

write_report: Any = tasks.write_report  # celery-types does not know all its methods
pytestmark = [pytest.mark.promise("send_after_commit"), pytest.mark.usefixtures("broker")]
CLOCK_IS_SET = timedelta(seconds=0.05)  # by so much it may go back meanwhile


def sends() -> dict[str, Callable[[], Any]]:
    """Every way to send a task, by its name."""
    return {
        "delay": lambda: write_report.delay(1),
        "apply_async": lambda: write_report.apply_async(kwargs={"report_id": 1}),
        "send_task": lambda: app.send_task("of.another.project", (1,)),
        "signature": lambda: write_report.s(1).delay(),
        "link": lambda: write_report.apply_async((1,), link=write_report.si(2)),
        "chain": lambda: chain(write_report.si(1), write_report.si(2))(),
        "group": lambda: group(write_report.s(1), write_report.s(2))(),
        "chunks": lambda: write_report.chunks([(1,), (2,)], 1)(),
        "on commit": lambda: write_report.delay_on_commit(1),
    }


def without_ids(messages: list[Message]) -> list[str]:
    """Return headers and bodies, with a word in place of what differs from call to call.

    The headers for people to read show arguments as the task gets them: lists, where tuples were.
    """
    shown = {"argsrepr": None, "kwargsrepr": None, "sent_at": None}
    texts = [json.dumps([{**message.headers, **shown}, message.payload]) for message in messages]
    return [re.sub("[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", "id", text) for text in texts]


@pytest.mark.parametrize("way", sends())
def test_every_way_to_send_waits_for_the_commit(way: str) -> None:
    with rolled_back():
        sends()[way]()
    assert received() == []
    with transaction.atomic():
        sends()[way]()
        assert received() == []
    held_back = received()
    sends()[way]()
    assert without_ids(held_back) == without_ids(received()) != []


def test_arguments_are_those_of_the_call() -> None:
    ids = [1]
    with transaction.atomic():
        write_report.apply_async((ids,), link=write_report.si(ids))
        ids.append(2)
    (message,) = received()
    args, _, embedded = message.payload
    assert args == [[1]]
    assert embedded["callbacks"][0]["args"] == [[1]]


def test_times_count_from_the_call(start_worker: StartWorker) -> None:
    """A countdown of a minute means a minute from now, however long the transaction takes."""
    start_worker()  # on RabbitMQ it declares what holds delayed messages
    published: list[Any] = []

    def note(headers: Any, **_: Any) -> None:
        published.append(headers)

    before_task_publish.connect(note)
    with transaction.atomic():
        before = datetime.now(UTC)
        write_report.apply_async((1,), countdown=60, expires=90)
        after = datetime.now(UTC)
        connection.cursor().execute("SELECT pg_sleep(0.3)")
    (headers,) = published
    for header, seconds in {"eta": 60, "expires": 90}.items():
        called = datetime.fromisoformat(headers[header]) - timedelta(seconds=seconds)
        assert before - CLOCK_IS_SET < called < after + CLOCK_IS_SET, header


def test_the_parent_is_the_task_that_sends() -> None:
    """By the commit that one may have ended, and another goes on."""
    senders.send_by_another.apply(("a child",))
    (message,) = received()
    assert message.headers["parent_id"] == "sender of a child"


def test_log_context_is_that_of_the_call() -> None:
    with transaction.atomic():
        with structlog.contextvars.bound_contextvars(order="A-1"):
            write_report.delay(1)
        write_report.delay(2)
    contexts: list[Any] = [message.headers["__django_structlog__"] for message in received()]
    assert [context.get("order") for context in contexts] == ["A-1", None]


def test_a_connection_to_another_broker_is_used_after_the_commit(other_broker: Broker) -> None:
    """The one that was given may be closed by then."""
    with transaction.atomic():
        with other_broker.app.connection_for_write() as lent:
            there = write_report.apply_async((1,), connection=lent)
        with app.connection_for_write() as lent:
            here = write_report.apply_async((2,), connection=lent)
    assert received_ids() == [here.id]
    assert received_ids(other_broker.app) == [there.id]


def test_a_retry_inside_a_transaction_runs_again(start_worker: StartWorker) -> None:
    """Raising Retry rolls the transaction back; the message for the second run must not go with it."""
    start_worker("--include", "tests.senders")
    sent = senders.retry_inside_a_transaction.delay()
    eventually(lambda: runs(sent.id) == 2, "the second run")


def test_a_task_replaced_inside_a_transaction_runs(start_worker: StartWorker) -> None:
    start_worker("--include", "tests.senders")
    sent = senders.replace_inside_a_transaction.delay()
    eventually(lambda: runs(sent.id), "the task in its place, under its id")


@pytest.mark.parametrize("fail", [True, False])
def test_a_task_sends_another_with_its_own_transaction(start_worker: StartWorker, fail: bool) -> None:
    worker = start_worker("--include", "tests.senders", WORKER_CONCURRENCY="1")
    child = str(uuid4())
    parent = senders.send_inside_a_transaction.delay(child, fail=fail)
    if fail:
        assert worker.wait_for_failure() == "ValueError: on purpose"
    else:
        worker.wait_for(child)
    last = senders.add.delay(1)
    eventually(lambda: runs(last.id), "the task that was sent last")
    assert runs(child) == (0 if fail else 1)
    assert cache.get(f"parent-of-{child}") == (None if fail else parent.id)
