"""SIGTERM, as every deploy sends it."""

import os
import signal
import time

import pytest

from jobs.models import Report
from jobs.tasks import write_report
from tests import tasks
from tests.brokers import Broker, received_ids
from tests.harness import LONG, PATIENCE, StartWorker, Worker, ask_worker, eventually, waiting_messages
from tests.test_worker import order, wait_until_begun, wait_until_finished

pytestmark = pytest.mark.promise("drain")
LONG_GRACE = {"STOP_GRACE": "60", "LONG_STOP_GRACE": "60"}  # of a worker of both queues the second counts


def stop(worker: Worker) -> float:
    """Send SIGTERM, as a platform does, and return the seconds until the worker has ended."""
    begun = time.monotonic()
    worker.process.send_signal(signal.SIGTERM)
    worker.process.wait(PATIENCE)
    return time.monotonic() - begun


def test_a_running_task_finishes_and_the_worker_ends_then(start_worker: StartWorker) -> None:
    """It does not wait for the whole grace, as Celery's soft shutdown does."""
    worker = start_worker(**LONG_GRACE)
    report = order(seconds=3, **LONG)
    wait_until_begun(report)
    assert stop(worker) < 40
    report.refresh_from_db()
    assert report.finished_at is not None
    assert report.attempts == 1
    assert worker.process.returncode == 0


def test_no_further_task_is_begun(start_worker: StartWorker) -> None:
    worker = start_worker("-X", "long", WORKER_CONCURRENCY="1", **LONG_GRACE)
    running, waiting = order(seconds=3, **LONG), order()
    wait_until_begun(running)
    stop(worker)
    waiting.refresh_from_db()
    assert waiting.attempts == 0
    start_worker()
    wait_until_finished(running, waiting)
    assert (running.attempts, waiting.attempts) == (1, 1)


def test_what_a_process_has_but_has_not_begun_finishes_too(start_worker: StartWorker) -> None:
    """The moment between the two is short, so this process is stopped in it."""
    worker = start_worker(WORKER_CONCURRENCY="1", **LONG_GRACE)
    (process,) = ask_worker("stats")["pool"]["processes"]
    os.kill(process, signal.SIGSTOP)
    report = order()
    eventually(lambda: ask_worker("reserved"), "the worker holds the task")
    worker.process.send_signal(signal.SIGTERM)
    worker.wait_for("Draining: 1 tasks may finish")
    report.refresh_from_db()
    assert report.attempts == 0, "it had begun"
    os.kill(process, signal.SIGCONT)
    worker.process.wait(PATIENCE)
    report.refresh_from_db()
    assert report.finished_at is not None
    assert received_ids() == []


def test_what_waits_for_its_time_is_not_begun(start_worker: StartWorker) -> None:
    """Countdowns that end while the worker drains, and tasks that their rate limit held up."""
    worker = start_worker(**LONG_GRACE)
    later = Report.objects.create(title="Elks")
    write_report.apply_async((later.pk,), countdown=3)
    limited = [tasks.limited.delay() for _ in range(2)]
    running = order(seconds=6, **LONG)
    wait_until_begun(running)
    stop(worker)
    running.refresh_from_db()
    assert running.finished_at is not None, "the time of the others did not come"
    later.refresh_from_db()
    assert later.attempts == 0
    assert [tasks.runs(sent.id) for sent in limited] == [1, 0]
    start_worker()
    wait_until_finished(later)
    eventually(lambda: tasks.runs(limited[1].id), "the run of what its rate limit held up")
    assert later.attempts == 1


def test_a_worker_that_was_asked_to_end_waits_for_no_broker(
    start_worker: StartWorker, other_broker: Broker
) -> None:
    """Else it would wait for its whole grace to tell a broker that is gone what has finished."""
    worker = start_worker(BROKER_URL=other_broker.url, STOP_GRACE="600", LONG_STOP_GRACE="600")
    worker.wait_for("ready.")
    report = Report.objects.create(title="Ants", seconds=12)
    other_broker.app.send_task(write_report.name, (report.pk,), time_limit=50, soft_time_limit=40)
    wait_until_begun(report)
    worker.process.send_signal(signal.SIGTERM)
    worker.wait_for("Draining: 1 tasks may finish")
    other_broker.kill()
    report.refresh_from_db()
    assert report.finished_at is None, "it finished before the broker was killed"
    worker.process.wait(PATIENCE)
    other_broker.restart()


def test_what_takes_longer_is_given_back_at_once(start_worker: StartWorker) -> None:
    """Its message waits in the queue when the worker ends: no visibility timeout has to pass."""
    worker = start_worker()
    report = order(seconds=600, time_limit=3600, soft_time_limit=3599)
    wait_until_begun(report)
    stop(worker)
    assert waiting_messages() == 1
    Report.objects.filter(pk=report.pk).update(seconds=0)
    start_worker()
    wait_until_finished(report)
    assert report.attempts == 2
