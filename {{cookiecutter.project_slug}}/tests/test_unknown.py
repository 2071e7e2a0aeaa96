"""A deploy with two versions of the code at work: what the old one does not know waits for the new one."""

import pytest

from config.celery import app
from reliability.models import DeadLetter
from tests import tasks
from tests.harness import StartWorker, eventually

pytestmark = pytest.mark.promise("unknown_tasks")
OLD, NEW = "tests.tasks,tests.older", "tests.tasks,tests.newer"


@pytest.mark.parametrize(
    ("name", "details", "problem"),
    [
        ("tests.tasks.brand_new", {}, "Unknown task tests.tasks.brand_new"),
        ("tests.tasks.extended", {"colour": "red", "size": "large"}, "does not take these arguments"),
    ],
    ids=["a new task", "a new argument"],
)
def test_what_the_old_version_does_not_know_runs_when_the_new_one_comes(
    name: str, details: dict[str, str], problem: str, start_worker: StartWorker
) -> None:
    old = start_worker("--include", OLD)
    sent = app.send_task(name, [], details)
    old.wait_for(problem)
    assert tasks.runs(sent.id) == 0
    start_worker("--include", NEW)
    eventually(lambda: tasks.runs(sent.id), "the new worker runs it")
    assert not DeadLetter.objects.exists()


def test_a_worker_that_waits_for_another_version_goes_on_working(start_worker: StartWorker) -> None:
    """More unknown messages than it may prefetch do not stop it."""
    old = start_worker(WORKER_CONCURRENCY="1")
    for _ in range(5):
        app.send_task("tests.tasks.brand_new")
    old.wait_for("Unknown task")
    sent = tasks.misbehave.delay("not at all")
    eventually(lambda: tasks.runs(sent.id), "a task that it knows")


def test_a_worker_that_ends_while_it_waits_loses_nothing(start_worker: StartWorker) -> None:
    old = start_worker()
    sent = app.send_task("tests.tasks.brand_new")
    old.wait_for("Unknown task")
    old.process.terminate()
    old.process.wait(60)
    start_worker("--include", NEW)
    eventually(lambda: tasks.runs(sent.id), "the new worker runs it")


@pytest.mark.promise("dead_letters")
def test_what_nobody_comes_to_know_is_kept_in_the_end(start_worker: StartWorker) -> None:
    old = start_worker(PATIENCE="1")
    sent = app.send_task("tests.tasks.brand_new")
    old.wait_for("Unknown task")
    eventually(DeadLetter.objects.filter(task_id=sent.id, reason="unknown_task").exists, "the dead letter")
