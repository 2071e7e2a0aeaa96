"""config/celeryconfig.py: the form of its comments, its names, and the relations between its numbers."""

import ast
import os
import re
import socket
import subprocess
import sys
from datetime import timedelta

import pytest
from celery.app.defaults import NAMESPACES, flatten
from celery.exceptions import QueueNotFound
from celery.result import AsyncResult
from django.conf import settings

from config import celeryconfig
from config.celery import app
from dev import BASE_DIR
from dev.processes import free_port
from jobs.tasks import write_report
from reliability import limits
from tests import tasks
from tests.harness import PATIENCE, StartWorker, eventually

KNOWN = set(dict(flatten(NAMESPACES)))
OURS = {name for name in vars(celeryconfig) if name.islower() and not name.startswith("_")}
SOURCE = (BASE_DIR / "config" / "celeryconfig.py").read_text()
LABELS = ["Why", "Without it", "Price", "Proof"]
SEND_FROM_THREADS = """
import threading, time
import django; django.setup()
from config.celery import app
from jobs.tasks import write_report

app.finalize()
seconds = []

def send():
    begun = time.monotonic()
    try:
        write_report.delay(1)
    except Exception:
        seconds.append(time.monotonic() - begun)

threads = [threading.Thread(target=send) for _ in range(60)]
[thread.start() for thread in threads]
[thread.join() for thread in threads]
print(len(seconds), max(seconds))
"""


def comment_above(name: str) -> list[str]:
    """Return the comment lines that stand directly above a setting."""
    for statement in ast.parse(SOURCE).body:
        target = getattr(statement, "target", None) or getattr(statement, "targets", [None])[0]
        if isinstance(target, ast.Name) and target.id == name:
            above = SOURCE.splitlines()[: statement.lineno - 1]
            start = next(i for i in range(len(above), 0, -1) if not above[i - 1].startswith("#"))
            return above[start:]
    raise LookupError(name)


def test_every_name_is_known_to_celery() -> None:
    """Celery ignores a name that it does not know, without a word."""
    assert sorted(OURS - KNOWN) == []


@pytest.mark.parametrize("name", sorted(OURS))
def test_every_setting_stands_beside_its_reason(name: str) -> None:
    comment = comment_above(name)
    labels = [match[1] for line in comment if (match := re.match(r"# ([A-Z][a-z ]+): ", line))]
    assert labels == LABELS
    assert re.fullmatch(r"# https://docs\.celeryq\.dev/\S+", comment[-1])


@pytest.mark.parametrize("name", sorted(OURS))
def test_every_proof_exists(name: str) -> None:
    proofs = re.findall(r"((?:tests|faults)/\w+\.py)::(\w+)", "\n".join(comment_above(name)))
    assert proofs
    for path, test in proofs:
        assert f"def {test}(" in (BASE_DIR / path).read_text()


def test_the_numbers_follow_from_the_graces() -> None:
    hard, soft = celeryconfig.task_time_limit, celeryconfig.task_soft_time_limit
    assert hard == int(os.environ["STOP_GRACE"]) - limits.EXIT
    # jinja: if cookiecutter.deploy != "heroku"
    assert hard < celeryconfig.LONG_TIME_LIMIT
    assert int(os.environ["LONG_STOP_GRACE"]) - limits.EXIT == celeryconfig.LONG_TIME_LIMIT
    # jinja: endif
    assert settings.RELIABILITY["long_time_limit"] == celeryconfig.LONG_TIME_LIMIT
    assert 0 < soft < hard
    assert soft == limits.soft_limit(hard)
    assert celeryconfig.worker_soft_shutdown_timeout == hard


# jinja: if cookiecutter.broker == "redis"
def test_the_visibility_timeout_covers_the_longest_delay_and_two_runs() -> None:
    timeout = celeryconfig.broker_transport_options["visibility_timeout"]
    longest = celeryconfig.LONG_TIME_LIMIT or celeryconfig.task_time_limit
    assert timeout == int(os.environ["TASK_LONGEST_DELAY"]) + 2 * longest


# jinja: endif
def test_a_misspelled_queue_is_refused() -> None:
    """Where a task is sent, and where a worker starts."""
    with pytest.raises(QueueNotFound, match="celry"):
        write_report.apply_async((1,), queue="celry")
    worker = run("-m", "celery", "-A", "config", "worker", "-Q", "celry")
    assert worker.returncode != 0
    assert "celry" in worker.stderr


def test_a_worker_never_gives_up_on_its_broker() -> None:
    """Celery's own number of attempts, 100, is soon reached when nobody waits between them."""

    class EnoughError(Exception):
        pass

    attempts = []

    def note(error: BaseException, _interval: float) -> None:
        attempts.append(error)
        if len(attempts) > 150:
            raise EnoughError

    with app.connection(port=free_port(), hostname="127.0.0.1") as connection:
        with pytest.raises(EnoughError):
            connection.ensure_connection(note, app.conf.broker_connection_max_retries, 0, 0, 0)


def test_a_retry_that_cannot_be_sent_puts_the_message_back(start_worker: StartWorker) -> None:
    worker = start_worker()
    sent = tasks.deadly_once.delay()
    eventually(lambda: tasks.runs(sent.id) == 2, "the second run")
    assert "Failed to retry task tests.tasks.deadly_once" in worker.log.read_text()


def test_a_process_that_has_grown_is_replaced_after_its_task(start_worker: StartWorker) -> None:
    start_worker(WORKER_CONCURRENCY="1", WORKER_MAX_MEMORY_MB="300")

    def process_of(sent: AsyncResult[None]) -> int:
        return int(eventually(lambda: tasks.process(sent.id), "the end of the task"))

    first, second = process_of(tasks.grow.delay(1)), process_of(tasks.grow.delay(1))
    large, small = process_of(tasks.grow.delay(400)), process_of(tasks.grow.delay(1))
    assert first == second == large
    assert small != large


def test_no_thread_waits_for_the_connection_of_another() -> None:
    """Sixty threads send to a frozen broker, and each learns it as soon as one alone would."""
    with socket.create_server(("127.0.0.1", 0), backlog=100) as silent:
        url = re.sub(r"127\.0\.0\.1:\d+", f"127.0.0.1:{silent.getsockname()[1]}", os.environ["BROKER_URL"])
        ended = run("-c", SEND_FROM_THREADS, BROKER_URL=url, WEB_THREADS="60")
    failed, slowest = ended.stdout.split()
    assert failed == "60"
    assert float(slowest) < 7


def run(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run Python in a process of its own."""
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=BASE_DIR,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )


def test_concurrency_comes_from_the_environment() -> None:
    shown = run(
        "-c", "from config.celery import app; print(app.conf.worker_concurrency)", WORKER_CONCURRENCY="7"
    )
    assert shown.stdout == "7\n"


def test_workers_have_no_connection_pool() -> None:
    code = (
        "from celery.signals import worker_init; from config import celery; from django.db import connection;"
        "before = connection.settings_dict['OPTIONS'].get('pool'); worker_init.send(sender=None);"
        "print(bool(before), connection.pool)"
    )
    shown = run("-c", code)
    assert shown.stdout == "True None\n"


def test_schedule_and_django_agree_on_the_time_zone() -> None:
    assert celeryconfig.timezone == settings.TIME_ZONE


@pytest.mark.parametrize("name", celeryconfig.beat_schedule)
def test_schedule_names_real_tasks_that_expire_before_the_next_is_due(name: str) -> None:
    app.loader.import_default_modules()
    entry = celeryconfig.beat_schedule[name]
    assert entry["task"] in app.tasks
    now = app.now()
    first = now + entry["schedule"].remaining_estimate(now) + timedelta(seconds=1)
    second = now + entry["schedule"].remaining_estimate(first)
    assert 0 < entry["options"]["expires"] <= round((second - first).total_seconds() + 1)
