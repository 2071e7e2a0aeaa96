"""What is counted is what happened; what is asked of broker and database is their own truth."""

import os
import re
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial

import pytest
from celery import Celery

from dev import BASE_DIR
from reliability import signals
from tests import tasks
from tests.brokers import Broker
from tests.harness import LONG, StartWorker, Worker, eventually, figure


def sees_a_message(exporter: Worker) -> bool:
    """Return whether the exporter knows that a message waits."""
    return figure(exporter, "celery_queue_messages", queue="celery") >= 1


@pytest.mark.promise("retries")
@pytest.mark.parametrize("pool", ["prefork", "threads", "solo"])
def test_what_becomes_of_tasks_is_counted(start_worker: StartWorker, pool: str) -> None:
    worker = start_worker("--pool", pool, "--concurrency", "1", "--prefetch-multiplier", "1")
    first = tasks.take.apply_async((3,), **LONG)
    eventually(lambda: tasks.runs(first.id), "the first one to begin")
    tasks.misbehave.apply_async(("not at all",), expires=1)
    for _ in range(3):
        tasks.misbehave.delay("not at all")
    tasks.misbehave.delay("with an error")
    tasks.misbehave.delay("by rejecting it")
    tasks.misbehave.delay("once")
    labels = {"task": "tests.tasks.misbehave", "queue": "celery"}

    def finished(outcome: str) -> float:
        return figure(worker, "celery_tasks_finished_total", outcome=outcome, **labels)

    eventually(lambda: finished("succeeded") == 4, "three that succeed, and one at its second try")
    eventually(lambda: finished("failed") == 1, "one that fails")
    eventually(lambda: finished("rejected") == 1, "one that is rejected")
    assert finished("retried") == 1
    eventually(lambda: figure(worker, "celery_tasks_expired_total", **labels) == 1, "one that expires")
    assert figure(worker, "celery_tasks_received_total", **labels) >= 7
    assert figure(worker, "celery_tasks_started_total", **labels) == 7
    assert figure(worker, "celery_task_run_seconds_count", **labels) == 7
    assert figure(worker, "celery_task_wait_seconds_count", **labels) == 7


@pytest.mark.promise("dead_letters")
def test_dead_letters_are_counted_by_reason(
    start_worker: StartWorker, start_exporter: Callable[..., Worker]
) -> None:
    worker = start_worker()
    tasks.misbehave.delay("with an error")
    labels = {"task": "tests.tasks.misbehave", "reason": "failed"}
    eventually(lambda: figure(worker, "celery_dead_letters_total", **labels) == 1, "the letter")
    exporter = start_exporter()
    eventually(lambda: figure(exporter, "celery_dead_letters", reason="failed") == 1, "the row")
    assert figure(exporter, "celery_dead_letters", reason="rejected") == 0


def test_a_lost_process_is_counted_and_its_successor_too(start_worker: StartWorker) -> None:
    worker = start_worker("--concurrency", "1")
    tasks.deadly.delay()
    labels = {"task": "tests.tasks.deadly", "outcome": "lost"}
    eventually(lambda: figure(worker, "celery_tasks_finished_total", **labels) == 2, "two lost runs")
    eventually(lambda: figure(worker, "celery_worker_pool_processes_started_total") >= 3, "a third process")
    eventually(lambda: figure(worker, "celery_worker_pool_processes") == 1, "no other")


def test_replaced_processes_lose_no_figures(start_worker: StartWorker) -> None:
    """Each task runs in a process of its own, and no process leaves anything behind."""
    worker = start_worker("--max-tasks-per-child", "1")
    for _ in range(10):
        tasks.misbehave.delay("not at all")
    labels = {"task": "tests.tasks.misbehave", "outcome": "succeeded"}
    eventually(lambda: figure(worker, "celery_tasks_finished_total", **labels) == 10, "all of them")
    eventually(
        lambda: figure(worker, "celery_worker_pool_processes_started_total") >= 10, "as many processes"
    )


def test_what_runs_and_what_waits_in_the_worker(start_worker: StartWorker) -> None:
    worker = start_worker("--concurrency", "1", "--prefetch-multiplier", "3", "-X", "long")
    for _ in range(3):
        tasks.take.apply_async((60,), time_limit=100, soft_time_limit=90)
    eventually(lambda: figure(worker, "celery_worker_running_tasks") == 1, "one that runs")
    eventually(lambda: figure(worker, "celery_worker_prefetched_tasks") == 2, "two that wait")
    assert figure(worker, "celery_worker_held_messages") == 3
    labels = {"task": "tests.tasks.take", "queue": "celery"}
    eventually(lambda: figure(worker, "celery_task_oldest_run_seconds", **labels) > 1, "time to pass")
    assert 0 < figure(worker, "celery_task_limit_used_ratio", **labels) < 0.5
    assert figure(worker, "celery_worker_memory_bytes", process="pool") > 10_000_000
    assert figure(worker, "celery_worker_consuming", queue="celery") == 1


def test_no_message_adds_a_label(start_worker: StartWorker) -> None:
    worker = start_worker(PATIENCE="0")
    before = len(re.findall("^celery_.*task=", worker.get("/metrics")[1], re.MULTILINE))
    stranger = Celery("stranger", set_as_current=False)
    stranger.config_from_object("config.celeryconfig")
    for number in range(20):
        stranger.send_task(f"unknown.task_{number}", queue="celery")
    tasks.misbehave.delay("not at all")
    labels = {"task": "tests.tasks.misbehave", "outcome": "succeeded"}
    eventually(lambda: figure(worker, "celery_tasks_finished_total", **labels) == 1, "the one that is known")
    text = worker.get("/metrics")[1]
    assert "unknown.task" not in text
    assert len(re.findall("^celery_.*task=", text, re.MULTILINE)) < before + 20


def test_the_length_and_age_of_a_queue(start_exporter: Callable[..., Worker]) -> None:
    exporter = start_exporter()
    for _ in range(5):
        tasks.misbehave.delay("not at all")
    eventually(lambda: figure(exporter, "celery_queue_messages", queue="celery") >= 5, "its length")
    age = {"queue": "celery"}
    eventually(lambda: figure(exporter, "celery_queue_oldest_message_age_seconds", **age) > 2, "its age")


# jinja: if cookiecutter.broker == "redis"
def test_priorities_and_what_is_for_later(start_exporter: Callable[..., Worker]) -> None:
    """Each priority has a list of its own; what has an ETA to come is not old."""
    exporter = start_exporter()
    tasks.misbehave.apply_async(("not at all",), countdown=3600)
    for priority in (0, 3, 9):
        tasks.misbehave.apply_async(("not at all",), priority=priority, countdown=3600)
    eventually(lambda: figure(exporter, "celery_queue_messages", queue="celery") == 4, "all priorities")
    assert figure(exporter, "celery_queue_oldest_message_age_seconds", queue="celery") == 0
    tasks.misbehave.apply_async(("not at all",), priority=9)
    eventually(
        lambda: figure(exporter, "celery_queue_oldest_message_age_seconds", queue="celery") > 1, "its age"
    )


def test_what_redis_tells_about_itself(start_exporter: Callable[..., Worker]) -> None:
    exporter = start_exporter()
    assert figure(exporter, "celery_broker_memory_bytes") > 100_000
    assert figure(exporter, "celery_broker_evicts") == 0
    assert figure(exporter, "celery_broker_persists") == 1
    assert figure(exporter, "celery_broker_persistence_works") == 1
    assert figure(exporter, "celery_broker_eviction_policy_info", policy="noeviction") == 1
    assert figure(exporter, "celery_visibility_timeout_seconds") == 9


# jinja: else
def test_canaries_come_back_and_are_few(
    start_worker: StartWorker, start_exporter: Callable[..., Worker]
) -> None:
    """Where nobody takes them, there is one, whose age is the queue's; a worker's taking it ends that."""
    exporter = start_exporter()
    age = {"queue": "celery", "source": "canary"}
    eventually(lambda: figure(exporter, "celery_queue_oldest_message_age_seconds", **age) > 8, "its age")
    assert figure(exporter, "celery_queue_messages", queue="celery") == 1
    start_worker("-X", "long")
    eventually(lambda: figure(exporter, "celery_queue_oldest_message_age_seconds", **age) == 0, "its return")
    assert figure(exporter, "celery_queue_consumers", queue="celery") == 1


# jinja: endif
def test_several_exporters_tell_the_same(start_exporter: Callable[..., Worker]) -> None:
    first, second = start_exporter(), start_exporter()
    tasks.misbehave.delay("not at all")
    for exporter in (first, second):
        eventually(partial(sees_a_message, exporter), "both to see it")


def test_a_broker_that_does_not_answer_holds_up_no_scrape(
    start_exporter: Callable[..., Worker], other_broker: Broker
) -> None:
    exporter = start_exporter(BROKER_URL=other_broker.url)
    with other_broker.frozen():
        eventually(
            lambda: figure(exporter, "celery_source_up", source="broker") == 0, "the exporter to notice"
        )
        begun = time.monotonic()
        assert figure(exporter, "celery_source_up", source="database") == 1
        assert time.monotonic() - begun < 2
        assert figure(exporter, "celery_queue_messages") == -1  # rather nothing than what was
    eventually(lambda: figure(exporter, "celery_source_up", source="broker") == 1, "the broker again")


def test_the_exporter_ends_when_its_port_is_taken(start_exporter: Callable[..., Worker]) -> None:
    exporter = start_exporter()
    environment = {**os.environ, "METRICS_PORT": str(exporter.port)}
    done = subprocess.run(
        [sys.executable, "manage.py", "exporter"],
        cwd=BASE_DIR,
        env=environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode != 0
    assert "Address already in use" in done.stderr


def test_database_connections(start_exporter: Callable[..., Worker]) -> None:
    exporter = start_exporter()
    eventually(lambda: figure(exporter, "celery_database_connections") >= 1, "our own")
    assert figure(exporter, "celery_database_connections_limit") > 10


def test_an_error_while_counting_concerns_no_task(caplog: pytest.LogCaptureFixture) -> None:
    seen: list[str] = []
    signal = signals.Signal()
    signal.connect(lambda reason: seen.append(reason[1]))
    signal.connect(lambda reason: seen.append(reason))
    signal.send(reason="x")
    assert seen == ["x"]
    assert "IndexError" in caplog.text
