"""When the broker does not take a task, the error says which, soon, and whether it may run all the same."""

import pickle
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from kombu.exceptions import OperationalError

from jobs.tasks import delete_old_reports
from reliability.publishing import PublishError, TaskMaybeSent, TaskNotSent
from tests.brokers import Broker, absent_broker, application, received_ids
from tests.harness import eventually
from tests.transactions import committed_with


def error_of(send: Callable[[], Any]) -> PublishError:
    """Return the error of sending a task, which must come within the time that a publish may take."""
    begun = time.monotonic()
    with pytest.raises(PublishError) as raised:
        send()
    assert time.monotonic() - begun < 7
    assert isinstance(raised.value, OperationalError)
    return raised.value


def error_text(error: PublishError) -> str:
    """Return what is said about this task, after it was checked that the task is named."""
    assert (error.task_id, error.task_name) == ("the-id", "a.task")
    text = str(error)
    assert text.startswith("a.task[the-id] ")
    return text.removeprefix("a.task[the-id] ")


def send_with(app: Any) -> PublishError:
    """Return the error of sending one task with this application."""
    return error_of(lambda: app.send_task("a.task", task_id="the-id"))


@pytest.mark.promise("publish_errors")
def test_a_task_that_met_no_broker_was_not_sent(tmp_path: Path) -> None:
    error = send_with(application(absent_broker(tmp_path)))
    assert isinstance(error, TaskNotSent)
    assert error_text(error).startswith("was not sent, and will not run (")


def send_to_frozen(other_broker: Broker) -> None:
    """Send a task with a connection that was there before the broker froze, and see that it may have left."""
    other_broker.app.send_task("a.task", task_id="first")
    with other_broker.frozen():
        error = send_with(other_broker.app)
    assert isinstance(error, TaskMaybeSent)
    assert error_text(error).startswith("may have been sent, and may run: no answer came (")


# jinja: if cookiecutter.broker == "redis"
@pytest.mark.promise("publish_errors")
def test_a_task_that_a_frozen_broker_did_not_confirm_may_have_been_sent(other_broker: Broker) -> None:
    """The message has left: it arrives when the broker wakes up."""
    send_to_frozen(other_broker)
    eventually(lambda: "the-id" in received_ids(other_broker.app), "its arrival")


# jinja: else
@pytest.mark.promise("publish_errors")
def test_a_task_that_a_frozen_broker_did_not_confirm_may_have_been_sent(other_broker: Broker) -> None:
    """The message has left: it arrives when the broker wakes up.

    Unless RabbitMQ notices first that its sender has gone, and drops it: this is tried until one arrives.
    """

    def arrives() -> bool:
        send_to_frozen(other_broker)
        other_broker.app.send_task("a.task", task_id="next")  # returns when the broker works again
        return "the-id" in received_ids(other_broker.app)

    eventually(arrives, "a task that arrives")


# jinja: endif
@pytest.mark.promise("publish_errors")
def test_a_task_for_which_a_frozen_broker_took_no_connection_was_not_sent(other_broker: Broker) -> None:
    other_broker.disconnect()
    with other_broker.frozen():
        error = send_with(other_broker.app)
    assert isinstance(error, TaskNotSent)
    other_broker.app.send_task("a.task", task_id="next")
    assert received_ids(other_broker.app) == ["next"]


@pytest.mark.promise("publish_errors")
def test_a_task_that_was_on_its_way_when_the_broker_died_may_have_been_sent(other_broker: Broker) -> None:
    """The second attempt met no broker at all, but the first one counts."""
    other_broker.app.send_task("a.task", task_id="first")
    with other_broker.frozen():
        server = other_broker.server.process
        assert server
        killer = threading.Timer(0.5, other_broker.kill)
        killer.start()
        error = send_with(other_broker.app)
        killer.join()
    other_broker.start()
    assert isinstance(error, TaskMaybeSent)


@pytest.mark.promise("publish_errors")
def test_a_task_sent_after_the_broker_died_was_not_sent(other_broker: Broker) -> None:
    """A connection that looks alive makes no difference."""
    other_broker.app.send_task("a.task", task_id="first")
    other_broker.kill()
    error = send_with(other_broker.app)
    other_broker.start()
    assert isinstance(error, TaskNotSent)


@pytest.mark.promise("publish_errors")
def test_a_task_that_a_finished_one_sends_is_told_apart_too(tmp_path: Path, other_broker: Broker) -> None:
    """A link or the rest of a chain: Celery has a loop of its own for these, and shows its last error."""
    refused: Any = application(absent_broker(tmp_path))
    frozen: Any = other_broker.app
    frozen.send_task("a.task", task_id="first")
    with other_broker.frozen():
        errors = [
            error_of(partial(app.amqp._retry_publish, app.send_task, "a.task")) for app in (refused, frozen)
        ]
    assert [type(error) for error in errors] == [TaskNotSent, TaskMaybeSent]


# jinja: if cookiecutter.broker == "redis"
@contextmanager
def full(other_broker: Broker) -> Iterator[dict[str, Any]]:
    """Leave the broker no memory; give the options of a task that it therefore refuses."""
    with other_broker.app.connection_for_write() as connection:
        channel: Any = connection.default_channel
        channel.client.config_set("maxmemory", 1)
        yield {}
        channel.client.config_set("maxmemory", 0)


# jinja: else
@contextmanager
def full(other_broker: Broker) -> Iterator[dict[str, Any]]:
    """Make a queue that is always full; give the options of a task that goes there."""
    with other_broker.app.connection_for_write() as connection:
        channel: Any = connection.default_channel
        limits = {"x-max-length": 0, "x-overflow": "reject-publish"}
        channel.queue_declare("full", durable=True, auto_delete=False, arguments=limits)
        channel.exchange_declare("full", "direct", durable=True, auto_delete=False)
        channel.queue_bind("full", "full", "full")
    yield {"exchange": "full", "exchange_type": "direct", "routing_key": "full"}


# jinja: endif
@pytest.mark.promise("publish_errors")
def test_a_task_that_the_broker_refuses_was_not_sent(other_broker: Broker) -> None:
    other_broker.app.send_task("a.task", task_id="first")
    with full(other_broker) as options:
        error = error_of(lambda: other_broker.app.send_task("a.task", task_id="the-id", **options))
    assert isinstance(error, TaskNotSent)


@pytest.mark.promise("publish_errors")
@pytest.mark.promise("send_after_commit")
@pytest.mark.usefixtures("broker")
def test_a_refusal_concerns_no_other_task_of_the_commit(other_broker: Broker) -> None:
    """Their queue, or their broker, may be another one."""
    with full(other_broker) as options, committed_with(TaskNotSent):
        other_broker.app.send_task("a.task", **options)
        sent = delete_old_reports.delay()
    assert received_ids() == [sent.id]


@pytest.mark.promise("publish_errors")
def test_a_task_sent_with_a_wrong_password_was_not_sent(other_broker: Broker) -> None:
    error = send_with(application(other_broker.url.replace("secret", "wrong")))
    assert isinstance(error, TaskNotSent)


@pytest.mark.promise("publish_errors")
def test_errors_of_the_caller_stay_what_they_are(other_broker: Broker) -> None:
    other_broker.app.conf.update(task_create_missing_queues=False)
    with pytest.raises(KeyError, match="nowhere"):
        other_broker.app.send_task("a.task", queue="nowhere")


def test_an_error_survives_pickling() -> None:
    """As it must between the processes of a worker."""
    error = TaskMaybeSent("a text")
    error.task_id = "the-id"
    copied = pickle.loads(pickle.dumps(error))
    assert (type(copied), str(copied), copied.task_id) == (TaskMaybeSent, "a text", "the-id")


def test_the_explanation_can_be_switched_off(tmp_path: Path, settings: Any) -> None:
    settings.RELIABILITY = {"publish_errors": False}
    with pytest.raises(OperationalError) as raised:
        application(absent_broker(tmp_path)).send_task("a.task")
    assert type(raised.value) is OperationalError
