"""The base of every task: what may pass is tried again, a limited number of times."""

import pytest

from jobs.tasks import delete_old_reports, send_report
from reliability.task import Task
from tests import tasks
from tests.harness import StartWorker, eventually

pytestmark = pytest.mark.promise("retries")


def test_a_transient_error_is_tried_again(start_worker: StartWorker) -> None:
    start_worker()
    sent = tasks.misbehave.delay("once")
    eventually(lambda: tasks.runs(sent.id) == 2, "the second run")


def test_tries_are_limited(start_worker: StartWorker) -> None:
    worker = start_worker()
    sent = tasks.unreachable.delay()
    assert worker.wait_for_failure() == "ConnectionError: on purpose"
    assert tasks.runs(sent.id) == 1 + 2


def test_a_lost_process_is_made_up_for(start_worker: StartWorker) -> None:
    start_worker()
    sent = tasks.deadly.delay()
    eventually(lambda: tasks.runs(sent.id) == 1 + 1, "the run after the first process was lost")


def test_every_task_waits_longer_each_time_and_never_for_ever() -> None:
    for task in (delete_old_reports, send_report, tasks.misbehave):
        assert isinstance(task, Task)
        assert task.retry_jitter
        assert 0 < task.retry_backoff <= task.retry_backoff_max
        assert task.max_retries in range(1, 20)
