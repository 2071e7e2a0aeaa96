"""What no Celery would send becomes one dead letter, shows its arguments in no log, and stops nothing."""

import json
from typing import Any

import pytest
from kombu import Connection
from pytest_django.fixtures import Settings

from config.celery import app
from reliability import capture, raw
from reliability.models import DeadLetter
from tests.harness import StartWorker, eventually
from tests.letters import PARKED, broker, channel, letter_of, take  # noqa: F401  # a fixture among them
from tests.test_deadletters import assert_still_working, publish, the_letter

pytestmark = pytest.mark.promise("dead_letters")
STORE = capture.STORE
ENVELOPE: dict[str, Any] = {
    "body": "W10=",
    "headers": {},
    "content-type": "application/json",
    "content-encoding": "utf-8",
    "properties": {
        "delivery_tag": "ants",
        "delivery_info": {"exchange": "", "routing_key": "celery"},
        "body_encoding": "base64",
    },
}
DEEP: list[Any] = []
for _ in range(900):  # what Python can read at one place and not write at another
    DEEP = [DEEP]
BAD_DATE = {"__type__": "datetime", "__value__": 5}
RAW = {
    "no date": BAD_DATE,
    "no number": {"__type__": "decimal", "__value__": "abc"},
    "no bytes": {"__type__": "bytes", "__value__": 1},
    "no date in a header": {**ENVELOPE, "headers": {"eta": BAD_DATE}},
    "an encoding that is none": {**ENVELOPE, "body": None, "content-encoding": 5},
    "a way to pack it that is none": {
        **ENVELOPE,
        "properties": {**ENVELOPE["properties"], "body_encoding": []},
    },
    "a history that is none": {**ENVELOPE, "headers": {"x-death": 5}},
    "a deep list": DEEP,
    "a deep header": {**ENVELOPE, "headers": {"a": DEEP}},
    "a body that is no base64": {**ENVELOPE, "body": "ä"},
}


def only_redis() -> Connection:
    """Return a connection to the broker, or skip the test: RabbitMQ holds nothing but messages."""
    connection = app.connection_for_write()
    if connection.transport.driver_type != "redis":
        pytest.skip("RabbitMQ takes nothing but messages")
    return connection


@pytest.mark.parametrize("found", RAW.values(), ids=RAW)
def test_whatever_is_on_a_queue_in_redis_is_kept(found: Any, start_worker: StartWorker) -> None:
    with only_redis() as connection:
        start_worker()
        channel(connection).client.lpush("celery", json.dumps(found))
    eventually(DeadLetter.objects.filter(reason="undecodable", queue="celery").exists, "the dead letter")
    assert_still_working()
    assert DeadLetter.objects.count() == 1


@pytest.mark.usefixtures("broker")
@pytest.mark.parametrize(
    "text",
    ["no JSON", '{"no": "message"}', json.dumps({**ENVELOPE, "headers": None})],
    ids=["no JSON", "no message", "no headers"],
)
def test_what_nobody_can_read_can_be_put_back(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The worker does so when the broker takes no dead letter, or when it has died."""
    with only_redis() as connection:
        from kombu.transport import redis

        for owner, name in ((redis, "loads"), (redis.Transport, "_deliver"), (redis.Channel, "Message")):
            monkeypatch.setattr(owner, name, getattr(owner, name))  # as before, after this test
        raw.guard()
        redis_client = channel(connection).client
        redis_client.lpush("celery", text)
        taken: list[Any] = []
        with connection.Consumer([app.amqp.queues["celery"]], on_message=taken.append):
            connection.drain_events(timeout=10)
        assert redis_client.llen("celery") == 0
        taken[0].requeue()
        assert redis_client.llen("celery") == 1


def test_what_is_no_dead_letter_is_kept_as_one(start_worker: StartWorker) -> None:
    """Otherwise the task that stores them would be told of its own failure, for ever."""
    worker = start_worker()
    app.send_task(STORE, ["no letter"], task_id="text")
    app.send_task(STORE, [{}], task_id="empty")
    with app.connection_for_write() as connection:
        publish(connection, b"{", headers={"task": STORE, "id": "broken"})
    assert the_letter("broken").reason == "undecodable"
    assert the_letter("empty").reason == "failed"
    assert json.loads(the_letter("text").body)[0] == ["no letter"]
    assert len(worker.events("task_failed")) == 2
    assert_still_working()


@pytest.mark.usefixtures("broker")
def test_a_dead_letter_whose_task_was_ended_comes_again(start_worker: StartWorker) -> None:
    """No dead letter is written about it."""
    start_worker("-X", PARKED)
    app.send_task(STORE, [letter_of(task_id="ants")], queue=PARKED)
    assert capture.keep(app, take(), "time_limit", "TimeLimitExceeded()")
    assert the_letter("ants").reason == "failed"
    assert DeadLetter.objects.count() == 1


def test_an_unknown_task_without_an_id_is_kept_once(start_worker: StartWorker) -> None:
    start_worker(WITHOUT="unknown_tasks")
    with app.connection_for_write() as connection:
        publish(connection, b"[[], {}, {}]", headers={"task": "tests.tasks.no_such_task"})
    eventually(DeadLetter.objects.filter(reason="unknown_task").exists, "the dead letter")
    assert_still_working()
    assert DeadLetter.objects.count() == 1


@pytest.mark.parametrize("task", ["tests.tasks.no_such_task", "tests.tasks.misbehave"])
def test_the_arguments_of_a_redacted_task_that_cannot_run_appear_nowhere(
    task: str, start_worker: StartWorker, settings: Settings
) -> None:
    settings.RELIABILITY = settings.RELIABILITY | {"redact": [task]}
    worker = start_worker(REDACT=task, WITHOUT="unknown_tasks", LOG_LEVEL="DEBUG")
    row = the_letter(app.send_task(task, [], {"password": "hunter2"}).id)
    assert_still_working()
    shown = [str(getattr(row, field.attname)) for field in DeadLetter._meta.fields]
    assert "hunter2" not in " ".join([*shown, worker.log.read_text()])


def test_the_arguments_of_a_redacted_task_appear_nowhere_when_it_is_sent_by_its_name(
    start_worker: StartWorker, settings: Settings
) -> None:
    settings.RELIABILITY = settings.RELIABILITY | {"redact": ["tests.tasks.misbehave"]}
    worker = start_worker(REDACT="tests.tasks.misbehave", LOG_LEVEL="DEBUG")
    the_letter(app.send_task("tests.tasks.misbehave", ["with an error"], {"password": "hunter2"}).id)
    assert "hunter2" not in worker.log.read_text()
