"""A dead letter is stored whatever it holds, counts once, and goes back as it came."""

import json
import signal
import threading
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest
from celery.app import app_or_default
from celery.exceptions import SoftTimeLimitExceeded
from django.db import connection, connections
from django.db.models.signals import post_init
from django.utils import timezone
from kombu import Connection
from kombu.exceptions import OperationalError

from config.celery import app
from reliability import capture, letters, requeueing
from reliability.models import DeadLetter, State
from reliability.redelivery import SINCE
from reliability.requeueing import requeue, requeue_next
from reliability.tasks import store_dead_letter
from tests.brokers import Broker
from tests.harness import StartWorker, eventually
from tests.letters import (
    PARKED,
    assert_parked,
    broker,  # noqa: F401  # a fixture
    broker_away,  # noqa: F401  # a fixture
    channel,
    letter_of,
    rows_of,
    take,
)

HALF = "\ud83d"  # one half of a surrogate pair
HOSTILE: dict[str, dict[str, Any]] = {
    "a NUL in every text": dict.fromkeys(
        ("task_id", "task", "args", "error", "traceback", "queue", "body", "worker", "letter_id"), "a\0b"
    ),
    "half a surrogate pair in every text": dict.fromkeys(
        ("task_id", "task", "kwargs", "error", "traceback", "exchange", "body", "content_type"), f"a{HALF}b"
    ),
    "names without end": dict.fromkeys(
        ("letter_id", "task_id", "task", "reason", "error", "queue", "routing_key", "worker"), "x" * 100_000
    ),
    "NUL and half pairs in headers": {"headers": json.dumps({"\0": ["\0", HALF, {"deep": HALF}]})},
    "headers nested deeper than PostgreSQL's JSON": {"headers": '{"a": ' + "[" * 900 + "]" * 900 + "}"},
    "numbers that no column holds": {
        "priority": 10**30,
        "deliveries": -(10**30),
        "headers": json.dumps({"number": 10**300}),
    },
    "what kombu takes for a date": {"headers": '{"a": {"__type__": "datetime", "__value__": "no date"}}'},
    "no numbers": {"headers": '{"a": NaN, "b": -Infinity}'},
    "times that no calendar has": {
        "sent_at": "0001-01-01T00:00:00+14:00",
        "failed_at": "9999-12-31T23:59:59-14:00",
    },
    "times that are none": {"sent_at": 7, "failed_at": "yesterday"},
    "nothing where text should be": dict.fromkeys(("task", "args", "error", "queue", "worker")),
    "arguments of a megabyte": {"args": "é" * 2**20, "body": "é" * 2**20},
    "HTML and a terminal's escapes": dict.fromkeys(
        ("task_id", "task", "args", "error", "traceback"), "</pre><script>alert(1)</script>\x1b[2J"
    ),
}
BROKEN: dict[str, dict[str, Any]] = {
    "a priority that is no number": {"priority": "high"},
    "headers that are no JSON": {"headers": "{"},
    "a body that is no text": {"body": 7},
}
hostile = pytest.mark.parametrize("changes", HOSTILE.values(), ids=HOSTILE)


@pytest.mark.django_db
@hostile
def test_hostile_content_is_stored(changes: dict[str, Any]) -> None:
    letters.store(letter_of(**changes))
    row = DeadLetter.objects.get()
    assert row.failures == 1
    assert row.complete


@pytest.mark.django_db
@pytest.mark.parametrize("changes", BROKEN.values(), ids=BROKEN)
def test_of_a_letter_that_cannot_be_stored_the_least_is(changes: dict[str, Any]) -> None:
    store_dead_letter(letter_of(**changes, task_id="broken"))
    row = DeadLetter.objects.get()
    assert (row.task_id, row.task, row.reason) == ("broken", "tests.tasks.misbehave", "failed")
    assert "could not be stored" in row.error
    assert not row.complete


@pytest.mark.django_db
def test_ids_that_must_be_cut_stay_apart() -> None:
    letters.store(letter_of(task_id="x" * 300 + "1"))
    letters.store(letter_of(task_id="x" * 300 + "2"))
    assert DeadLetter.objects.count() == 2


@pytest.mark.django_db
def test_the_same_letter_counts_once_and_a_second_failure_twice() -> None:
    """The broker may deliver a letter again, even after the next one."""
    first, second = letter_of(task_id="ants"), letter_of(task_id="ants", error="KeyError: 'second'")
    for letter in (first, first, second, first, second):
        letters.store(letter)
    row = DeadLetter.objects.get()
    assert row.failures == 2
    assert row.error == "KeyError: 'second'"
    assert row.first_failed_at.isoformat() == first["failed_at"]
    assert row.failed_at.isoformat() == second["failed_at"]


@pytest.mark.django_db
def test_a_requeued_task_that_fails_again_is_dead_again() -> None:
    letters.store(letter_of(task_id="ants"))
    DeadLetter.objects.update(state=State.REQUEUED, requeued_by="alice", requeued_at=timezone.now())
    letters.store(letter_of(task_id="ants"))
    row = DeadLetter.objects.get()
    assert (row.state, row.failures, row.requeued_by) == (State.DEAD, 2, "alice")


@pytest.mark.django_db
def test_a_letter_does_not_undo_a_requeue_that_waits() -> None:
    """Somebody asked for it, and it was not sent yet."""
    letters.store(letter_of(task_id="ants"))
    requeueing.ask(DeadLetter.objects.all(), by="alice")
    letters.store(letter_of(task_id="ants"))
    assert DeadLetter.objects.get().state == State.REQUEUEING


def in_threads(*calls: Callable[[], Any]) -> list[Any]:
    """Run the calls at the same time, each with a database connection of its own; return what they return."""
    ready, results = threading.Barrier(len(calls)), []

    def run(call: Callable[[], Any]) -> None:
        ready.wait()
        try:
            results.append(call())
        except Exception as error:
            results.append(error)
        finally:
            connections.close_all()

    threads = [threading.Thread(target=run, args=[call]) for call in calls]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return results


@pytest.mark.django_db(transaction=True)
def test_letters_of_one_task_stored_at_the_same_time_all_count() -> None:
    def store_five() -> None:
        for _ in range(5):
            letters.store(letter_of(task_id="ants"))

    in_threads(*[store_five] * 4)
    assert DeadLetter.objects.get().failures == 20


def store_a_real_message(**options: Any) -> tuple[Any, DeadLetter]:
    """Send a task as Celery does, take it from the queue as a worker does, and store it as a dead letter."""
    app.send_task("tests.tasks.misbehave", ["ä\0", {"b": [1, None]}], {"c": "d"}, queue=PARKED, **options)
    message = take()
    letters.store(capture.build(message, "failed", "ValueError: on purpose", "", "celery@tests"))
    return message, DeadLetter.objects.get()


@pytest.mark.usefixtures("broker")
def test_a_requeued_message_is_the_one_that_was_sent() -> None:
    """On the wire: id, headers, body, priority, content type, queue."""
    original, row = store_a_real_message(
        headers={"tenant": "ants"}, priority=3, time_limit=70, soft_time_limit=60
    )
    requeue(row, app)
    again = take()
    assert again.headers == original.headers
    assert again.headers["tenant"] == "ants"
    assert again.headers["timelimit"] == [70, 60]
    assert again.body == original.body
    assert (again.content_type, again.content_encoding) == (original.content_type, original.content_encoding)
    for name in ("correlation_id", "priority", "delivery_mode"):
        assert again.properties[name] == original.properties[name]


@pytest.mark.usefixtures("broker")
def test_a_requeued_task_starts_afresh() -> None:
    """Otherwise it would be dropped as expired, wait for a time that has passed, or have no retries left."""
    original, row = store_a_real_message(retries=3, expires=3600, eta=timezone.now())
    assert original.headers["retries"] == 3
    assert original.headers["expires"]
    requeue(row, app)
    again = take()
    afresh = {"retries": 0, "eta": None, "expires": None}
    assert again.headers == original.headers | afresh
    assert "expiration" not in again.properties


@pytest.mark.usefixtures("broker")
def test_a_requeued_task_may_be_unknown_for_as_long_as_a_new_one() -> None:
    original, row = store_a_real_message(headers={SINCE: 7.0})
    assert original.headers[SINCE]
    requeue(row, app)
    assert SINCE not in take().headers


@pytest.mark.usefixtures("broker")
def test_a_message_that_was_compressed_can_be_read_again() -> None:
    _, row = store_a_real_message(compression="zlib")
    assert "misbehave" in row.headers
    requeue(row, app)
    assert json.loads(take().body)[0] == ["ä\0", {"b": [1, None]}]


@pytest.mark.usefixtures("broker")
def test_a_message_of_celerys_first_protocol_starts_afresh_too() -> None:
    """Other languages still send it: everything is in the body."""
    fields = {"task": "tests.tasks.misbehave", "id": "7", "args": ["not at all"], "kwargs": {}}
    old = {**fields, "retries": 3, "expires": "2020-01-01T00:00:00", "eta": "2020-01-01T00:00:00"}
    letters.store(letter_of(headers="{}", body=json.dumps(old), queue=PARKED))
    requeue(DeadLetter.objects.get(), app)
    assert json.loads(take().body) == {**fields, "retries": 0, "expires": None, "eta": None}


@pytest.mark.usefixtures("broker")
@pytest.mark.parametrize("body", ["", "\0", f"a{HALF}b", "ä" * 70_000], ids=["empty", "NUL", "half", "long"])
def test_a_body_comes_back_byte_for_byte(body: str) -> None:
    letters.store(letter_of(body=body, queue=PARKED))
    requeue(DeadLetter.objects.get(), app)
    assert bytes_of(take()) == body.encode("utf-8", "surrogatepass")


def bytes_of(message: Any) -> bytes:
    """Return the body as it was on the wire: RabbitMQ's library has decoded it, where it could."""
    return message.body.encode() if isinstance(message.body, str) else message.body or b""


@pytest.mark.usefixtures("broker")
def test_bytes_that_are_no_text_come_back_byte_for_byte() -> None:
    letters.store(letter_of(body="//4A", body_encoding="base64", queue=PARKED))
    requeue(DeadLetter.objects.get(), app)
    assert bytes_of(take()) == b"\xff\xfe\x00"


@pytest.mark.usefixtures("broker")
def test_two_at_once_send_each_message_once() -> None:
    rows_of(300)
    results = in_threads(*[lambda: work_off()] * 3)
    assert sum(results) == 300
    assert_parked(300)
    assert DeadLetter.objects.filter(state=State.REQUEUED).count() == 300


def work_off() -> int:
    """Requeue what is dead, as long as there is something to take, and return how many were sent."""
    sent = 0
    while (
        done := requeue_next(DeadLetter.objects.filter(state=State.DEAD, requeue_error=""), app_or_default())
    ).last:
        sent += done.sent
    return sent


@pytest.mark.usefixtures("broker")
def test_what_cannot_be_sent_stays_dead_and_stops_nothing() -> None:
    rows_of(1, queue="")
    rows_of(1, complete=False)
    rows_of(1)
    assert work_off() == 1
    dead = DeadLetter.objects.filter(state=State.DEAD).order_by("pk")
    assert [row.requeue_error for row in dead] == [
        "Nobody knows its queue.",
        "Its message was not kept whole.",
    ]


def only_rabbitmq() -> Connection:
    """Return a connection to the broker, or skip the test where that is Redis, which refuses no queue."""
    connection = app.connection_for_write()
    if connection.transport.driver_type != "amqp":
        pytest.skip("Redis refuses no queue")
    return connection


@pytest.mark.usefixtures("broker")
def test_a_queue_that_the_broker_refuses_stops_nothing() -> None:
    """RabbitMQ closes the channel when a queue is declared in another way than it was made."""
    with only_rabbitmq() as rabbit:
        channel(rabbit).queue_delete("rejected")
        channel(rabbit).queue_declare("rejected", durable=True, auto_delete=False)
        rows_of(1, queue="rejected")
        rows_of(2)
        assert work_off() == 2
        assert "PRECONDITION_FAILED" in DeadLetter.objects.get(state=State.DEAD).requeue_error
        assert_parked(2)
        channel(rabbit).queue_delete("rejected")


@pytest.mark.usefixtures("broker")
def test_a_queue_that_was_deleted_swallows_nothing() -> None:
    """RabbitMQ drops what no queue wants, and this process has declared the queue already."""
    with only_rabbitmq() as rabbit:
        rows_of(1)
        assert work_off() == 1
        channel(rabbit).queue_delete(PARKED)
    rows_of(3)
    assert work_off() == 2
    assert "NO_ROUTE" in DeadLetter.objects.get(state=State.DEAD).requeue_error
    assert_parked(2)


@pytest.mark.django_db
@pytest.mark.usefixtures("broker_away")
def test_a_broker_that_is_away_leaves_the_letters_dead() -> None:
    rows_of(2)
    with pytest.raises(OperationalError):
        work_off()
    assert DeadLetter.objects.filter(state=State.DEAD, requeue_error="").count() == 2


def freeze_before(second: DeadLetter, other_broker: Broker, frozen: ExitStack) -> Callable[..., None]:
    """Return what freezes the broker when this letter is read, and has the soft limit come a little later."""

    def act(instance: DeadLetter, **_: Any) -> None:
        if instance.pk == second.pk:
            frozen.enter_context(other_broker.frozen())
            signal.setitimer(signal.ITIMER_REAL, 0.3)

    return act


def reach_soft_limit(*_: Any) -> None:
    """What billiard does in a task's process."""
    raise SoftTimeLimitExceeded


@pytest.mark.django_db(transaction=True)
def test_a_soft_limit_refuses_no_letter(other_broker: Broker) -> None:
    """What was sent is sent; the one on its way and those after it are for the next attempt."""
    rows = rows_of(3, state=State.REQUEUEING)
    waiting = DeadLetter.objects.filter(state=State.REQUEUEING, requeue_error="")
    usual = signal.signal(signal.SIGALRM, reach_soft_limit)
    with ExitStack() as frozen:
        act = freeze_before(rows[1], other_broker, frozen)
        post_init.connect(act, sender=DeadLetter)
        try:
            with pytest.raises(SoftTimeLimitExceeded):
                requeue_next(waiting, other_broker.app)
        finally:
            post_init.disconnect(act, sender=DeadLetter)
            signal.signal(signal.SIGALRM, usual)
    assert list(waiting.order_by("pk")) == rows[1:]
    other_broker.disconnect()  # on this connection an answer to the second is still to come
    assert requeue_next(waiting, other_broker.app).sent == 2
    assert not waiting.exists()


def execute(statement: str) -> None:
    """Change the table under the feet of a worker."""
    with connection.cursor() as cursor:
        cursor.execute(statement)


@pytest.fixture
def no_table(transactional_db: None) -> Iterator[Callable[[], None]]:
    """The table of dead letters is missing, as before a migration; until the test calls this."""
    execute("ALTER TABLE reliability_deadletter RENAME TO hidden")
    hidden = True

    def bring_back() -> None:
        nonlocal hidden
        if hidden:
            execute("ALTER TABLE hidden RENAME TO reliability_deadletter")
            hidden = False

    yield bring_back
    bring_back()


def test_a_letter_waits_while_the_database_fails(
    start_worker: StartWorker, no_table: Callable[[], None]
) -> None:
    worker = start_worker()
    store_dead_letter.delay(letter_of(task_id="patient"))
    eventually(lambda: len(worker.events("task_retrying")) >= 3, "several attempts")
    no_table()
    eventually(DeadLetter.objects.filter(task_id="patient", failures=1).exists, "the letter")


@pytest.mark.usefixtures("no_table")
def test_a_letter_is_never_given_up(start_worker: StartWorker) -> None:
    """After a hundred attempts comes another, not a dead letter about a dead letter."""
    worker = start_worker()
    app.send_task(store_dead_letter.name, [letter_of()], retries=100)
    (again,) = eventually(lambda: worker.events("task_retrying"), "another attempt")
    assert "reliability_deadletter" in again["reason"]


def test_hostile_content_passes_the_broker(start_worker: StartWorker) -> None:
    """In the message that brings it to the task which stores it."""
    start_worker()
    for changes in HOSTILE.values():
        store_dead_letter.delay(letter_of(**changes))
    eventually(lambda: DeadLetter.objects.count() == len(HOSTILE), "all letters")


def test_a_letter_that_the_database_refuses_leaves_a_trace(start_worker: StartWorker) -> None:
    start_worker()
    execute("ALTER TABLE reliability_deadletter ADD CONSTRAINT picky CHECK (body NOT LIKE '%refuse me%')")
    try:
        letter = letter_of(task_id=str(uuid.uuid4()), body="refuse me")
        store_dead_letter.delay(letter)
        eventually(DeadLetter.objects.exists, "the least of the letter")
    finally:
        execute("ALTER TABLE reliability_deadletter DROP CONSTRAINT picky")
    row = DeadLetter.objects.get()
    assert row.task_id == letter["task_id"]
    assert "IntegrityError" in row.error
    assert not row.complete
