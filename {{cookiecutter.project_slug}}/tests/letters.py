"""What the tests of dead letters share: letters, rows, and a look at what lies in a queue."""

import json
import uuid
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

import celery
import pytest
from django.utils import timezone
from kombu import Connection

from config.celery import app
from dev.processes import free_port
from reliability.letters import Letter
from reliability.models import DeadLetter
from tests.harness import empty_broker, eventually, waiting_messages

PARKED = "long"  # a queue from which a worker started with `-X long` takes nothing


def letter_of(task: str = "tests.tasks.misbehave", *args: Any, **changes: Any) -> Letter:
    """Return the letter of a message that Celery made, changed as asked."""
    task_id = str(changes.get("task_id", uuid.uuid4()))
    args = args or ("not at all",)
    message = app.amqp.create_task_message(task_id, task, args, {})
    letter = {
        "letter_id": str(uuid.uuid4()),
        "task_id": task_id,
        "task": task,
        "args": json.dumps(args),
        "kwargs": "{}",
        "reason": "failed",
        "error": "ValueError: on purpose",
        "traceback": 'Traceback (most recent call last):\n  File "tasks.py"\nValueError: on purpose\n',
        "queue": "celery",
        "exchange": "",
        "routing_key": "celery",
        "headers": json.dumps(message.headers),
        "body": json.dumps(message.body),
        "body_encoding": "utf-8",
        "content_type": "application/json",
        "content_encoding": "utf-8",
        "priority": None,
        "deliveries": 1,
        "worker": "celery@tests",
        "sent_at": None,
        "failed_at": timezone.now().isoformat(),
        "complete": True,
    }
    return Letter(**{**letter, **changes})  # type: ignore[typeddict-item]


def rows_of(count: int, **columns: Any) -> list[DeadLetter]:
    """Make that many dead letters at once; tasks that do nothing, in the queue PARKED."""
    now = timezone.now()
    rows = []
    for _ in range(count):
        letter: dict[str, Any] = {**letter_of(queue=PARKED)}
        del letter["letter_id"]
        given = {**letter, "failed_at": now, "first_failed_at": now}
        rows.append(DeadLetter(**{**given, **columns}))
    return DeadLetter.objects.bulk_create(rows)


def channel(connection: Connection) -> Any:
    """Return the transport's own channel; what it can do differs by transport."""
    return connection.default_channel


def clear() -> None:
    """Drop the messages in PARKED."""
    with app.connection_for_write() as connection:
        app.amqp.queues[PARKED](channel(connection)).declare()
        channel(connection).queue_purge(PARKED)


def assert_parked(count: int, *, twice: int = 0) -> None:
    """See that so many messages are in PARKED; RabbitMQ counts those in a quorum queue a little late.

    `twice` more may be there: what a slow broker did not confirm in time is sent again.
    """
    eventually(lambda: waiting_messages(PARKED) >= count, f"{count} messages")
    assert count <= waiting_messages(PARKED) <= count + twice


@pytest.fixture
def broker(servers: None, transactional_db: None) -> Iterator[None]:
    """A broker with no message, and nobody who takes one."""
    empty_broker()
    clear()
    yield
    clear()
    empty_broker()


@pytest.fixture
def broker_away() -> Iterator[None]:
    """The current application of this process is one whose broker refuses connections."""
    scheme = urlsplit(app.conf.broker_url).scheme
    away = celery.Celery(broker=f"{scheme}://127.0.0.1:{free_port()}")
    away.conf.task_publish_retry_policy = {"max_retries": 0}
    yield
    app.set_current()


def take() -> Any:
    """Return the next message in PARKED, and acknowledge it. Nothing of it is decoded."""
    eventually(lambda: waiting_messages(PARKED), "a message")
    with app.connection_for_read() as connection:
        return app.amqp.queues[PARKED](channel(connection)).get(no_ack=True)
