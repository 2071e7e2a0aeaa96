"""What a real worker does, in good times and bad."""

import pickle
from pathlib import Path
from typing import Any

from config.celery import app
from dev.processes import free_port
from dev.stack import SERVERS
from jobs.models import Report
from jobs.tasks import write_report
from tests.harness import LONG, StartWorker, eventually, waiting_messages


def order(seconds: float = 0, **options: Any) -> Report:
    """Make a report and send the task that writes it."""
    report = Report.objects.create(title="Ants", seconds=seconds)
    write_report.apply_async((report.pk,), **options)
    return report


def wait_until_finished(*reports: Report) -> None:
    """Return when all of them are written."""
    keys = [report.pk for report in reports]
    eventually(lambda: not Report.objects.filter(pk__in=keys, finished_at=None).exists(), "reports finished")
    for report in reports:
        report.refresh_from_db()


def wait_until_begun(report: Report) -> None:
    """Return when a worker has begun it."""
    eventually(lambda: Report.objects.filter(pk=report.pk, attempts__gt=0).exists(), "report begun")


def test_a_task_runs_in_the_worker(start_worker: StartWorker) -> None:
    start_worker()
    report = order()
    wait_until_finished(report)
    assert report.text == "All about Ants."
    assert report.attempts == 1


def test_a_task_survives_a_killed_worker(start_worker: StartWorker) -> None:
    """The worker is gone while the task runs; the next worker finishes it."""
    worker = start_worker()
    report = order(seconds=30, **LONG)
    wait_until_begun(report)
    worker.kill()
    report.refresh_from_db()
    assert report.finished_at is None, "it finished before the worker was killed"
    Report.objects.filter(pk=report.pk).update(seconds=0)
    start_worker()
    wait_until_finished(report)
    assert report.attempts == 2


def test_a_hung_task_is_stopped(start_worker: StartWorker) -> None:
    """The soft limit ends the task, and the process takes the next one."""
    worker = start_worker(WORKER_CONCURRENCY="1")
    hung, next_one = order(seconds=600), order()
    wait_until_finished(next_one)
    hung.refresh_from_db()
    assert (hung.attempts, hung.finished_at) == (1, None)
    assert "SoftTimeLimitExceeded" in worker.log.read_text()


def test_a_task_that_ignores_the_soft_limit_is_killed(start_worker: StartWorker) -> None:
    """The hard limit kills its process, and a new one takes the next task."""
    worker = start_worker(WORKER_CONCURRENCY="1")
    app.send_task("tests.tasks.stubborn")
    report = order()
    wait_until_finished(report)
    log = worker.log.read_text()
    assert "Soft time limit (2s) exceeded for tests.tasks.stubborn" in log
    assert "Hard time limit (3s) exceeded for tests.tasks.stubborn" in log


def test_waiting_tasks_stay_in_the_broker(start_worker: StartWorker) -> None:
    """A busy worker takes no more than its processes run, and on RabbitMQ seven for each in reserve."""
    held = {"redis": 1, "amqp": 8}[app.conf.broker_url.partition(":")[0]]
    start_worker("-X", "long", WORKER_CONCURRENCY="1")
    reports = [order(seconds=4, **LONG), *(order() for _ in range(9))]
    wait_until_begun(reports[0])
    eventually(lambda: waiting_messages() == len(reports) - held, "it holds what it may")
    reports[0].refresh_from_db()
    assert reports[0].finished_at is None, "it had finished one, and taken another"
    wait_until_finished(*reports)


def test_a_worker_waits_for_its_broker(start_worker: StartWorker, tmp_path: Path) -> None:
    """Started first, it keeps trying, and is ready once the broker is there."""
    (kind,) = (server for server in SERVERS if "BROKER_URL" in server.variables)
    broker = kind(tmp_path, free_port(), "secret", durable=False)
    worker = start_worker(BROKER_URL=broker.urls["BROKER_URL"])
    worker.wait_for("Cannot connect to")
    try:
        broker.start()
        worker.wait_for("ready.")
        worker.kill()
    finally:
        broker.stop()


class Trap:
    """Makes a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.path,)


def test_a_pickled_message_is_refused(start_worker: StartWorker, tmp_path: Path) -> None:
    """It is not even opened, and the worker goes on."""
    worker = start_worker()
    trap = tmp_path / "trap"
    headers = {"task": "jobs.tasks.write_report", "id": "7b9a6bd1-0000-4000-8000-000000000000"}
    with app.connection_for_write() as connection:
        connection.Producer().publish(
            pickle.dumps(((Trap(trap),), {}, {})),
            routing_key="celery",
            content_type="application/x-python-serialize",
            content_encoding="binary",
            headers=headers,
        )
    worker.wait_for("ContentDisallowed")
    report = order()
    wait_until_finished(report)
    assert not trap.exists()
