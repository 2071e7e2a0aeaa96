"""What RabbitMQ does for the tasks, by the way the queues are declared."""

import time
from typing import Any

import pytest

from config import celeryconfig
from config.celery import app
from jobs.models import Report
from jobs.tasks import delete_old_reports, write_report
from reliability import limits
from reliability.models import DeadLetter
from tests import tasks
from tests.brokers import Broker
from tests.harness import StartWorker, eventually, waiting_messages
from tests.test_limits import only_with_long_workers
from tests.test_worker import order, wait_until_begun, wait_until_finished


@pytest.mark.promise("dead_letters")
def test_what_is_delivered_too_often_is_rejected_and_kept(start_worker: StartWorker) -> None:
    """As a task is that ends its worker each time: nothing runs it any more, and it becomes a dead letter."""
    sent = tasks.misbehave.delay("with an error")
    limit = celeryconfig.task_queues["celery"]["queue_arguments"]["x-delivery-limit"]
    deliveries = 0
    with app.connection_for_read() as connection:
        channel: Any = connection.default_channel
        while message := taken(channel):
            deliveries += 1
            assert deliveries <= limit + 1
            channel.basic_reject(message.delivery_tag, requeue=True)
    assert deliveries == limit + 1
    start_worker()
    letter = eventually(DeadLetter.objects.first, "the dead letter")
    assert letter.task_id == sent.id
    assert tasks.runs(sent.id) == 0


def taken(channel: Any) -> Any:
    """Take the message from the queue `celery`; None once it is in `rejected`."""
    found: list[Any] = []

    def look() -> bool:
        found.append(channel.basic_get("celery"))
        return bool(found[-1]) or waiting_messages("rejected") > 0

    eventually(look, "the message, here or there")
    return found[-1]


def test_what_expires_in_its_queue_is_no_dead_letter(start_worker: StartWorker) -> None:
    """RabbitMQ moves it to `rejected` too: as the schedule wants it, once nobody needs the run any more."""
    delete_old_reports.apply_async(expires=1)
    eventually(lambda: waiting_messages("rejected"), "the message is in `rejected`")
    start_worker()
    eventually(lambda: not waiting_messages("rejected"), "the message is gone")
    wait_until_finished(order())
    assert not DeadLetter.objects.exists()


@pytest.mark.promise("throughput")
def test_acknowledgements_go_together(start_worker: StartWorker) -> None:
    """As many as a worker may hold; what is left over when it is killed comes back."""
    worker = start_worker("-X", "long", "--include", "tests.unhurried", WORKER_CONCURRENCY="1")
    wait_until_finished(*(order() for _ in range(app.conf.worker_prefetch_multiplier + 1)))
    worker.kill()
    eventually(lambda: waiting_messages() == 1, "the one that is left over")


def test_an_acknowledgement_covers_nothing_that_is_at_work(start_worker: StartWorker) -> None:
    """What came first and still runs is not acknowledged with what came later and has finished."""
    slow = Report.objects.create(title="Slow", seconds=40)
    write_report.apply_async((slow.pk,), time_limit=60, soft_time_limit=50)
    worker = start_worker("-X", "long", WORKER_CONCURRENCY="2")
    wait_until_begun(slow)
    for _ in range(3):
        wait_until_finished(*(order() for _ in range(10)))
    worker.kill()
    slow.refresh_from_db()
    assert slow.finished_at is None, "it finished before the worker was killed"
    Report.objects.filter(pk=slow.pk).update(seconds=0)
    start_worker()
    wait_until_finished(slow)
    assert slow.attempts == 2


def test_a_countdown_keeps_no_worker_from_its_work(start_worker: StartWorker) -> None:
    """Three tasks wait for their time, in RabbitMQ, and the one process runs another one meanwhile."""
    start_worker(WORKER_CONCURRENCY="1")
    later = [Report.objects.create(title="Later") for _ in range(3)]
    for report in later:
        write_report.apply_async((report.pk,), countdown=8)
    wait_until_finished(order())
    assert not Report.objects.filter(title="Later", attempts__gt=0).exists()
    wait_until_finished(*later)


@only_with_long_workers
def test_a_countdown_leads_to_a_queue_whose_workers_never_ran(start_worker: StartWorker) -> None:
    with app.connection_for_write() as connection:
        app.amqp.queues["long"](connection.default_channel).delete()
    start_worker("-X", "long")
    tasks.lengthy.apply_async(countdown=1)
    eventually(lambda: waiting_messages("long"), "the message is in `long`")


@pytest.mark.promise("check_limits")
def test_a_queue_that_takes_back_what_still_runs_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    longest = celeryconfig.LONG_TIME_LIMIT or celeryconfig.task_time_limit
    monkeypatch.setattr(app.amqp.queues["celery"], "queue_arguments", {"x-consumer-timeout": longest * 1000})
    assert [found.id for found in limits.check_limits()] == ["reliability.E017"]
    monkeypatch.undo()
    monkeypatch.setattr(app.amqp.queues["rejected"], "queue_arguments", {"x-consumer-timeout": 1000})
    assert limits.check_limits() == [], "nothing is run from it"


def test_a_blink_of_the_broker_interrupts_no_task(start_worker: StartWorker, other_broker: Broker) -> None:
    """It misses less than two heartbeats, so the worker keeps its connection, and with that what runs."""
    blink = 12  # seconds
    process = start_worker(BROKER_URL=other_broker.url)
    sent = other_broker.app.send_task("tests.tasks.take", (blink + 4,), time_limit=60, soft_time_limit=50)
    eventually(lambda: tasks.runs(sent.id), "the task to begin")
    with other_broker.frozen():
        time.sleep(blink)
    eventually(lambda: process.events("task_succeeded"), "the task to finish")
    assert tasks.runs(sent.id) == 1
    assert "Connection to broker lost" not in process.log.read_text()
