"""The tasks of the scenarios. Each writes into PostgreSQL that it began and that it finished.

They use Django's connection and Celery's own decorator, as a project's tasks do. The workers of
the fault suite know them, no other does.
"""

import os
import signal
import time
from pathlib import Path

from celery import shared_task
from celery.exceptions import Reject, SoftTimeLimitExceeded
from django.db import connection

KEPT: list[bytes] = []


def record(key: str, event: str) -> None:
    """Write a line: what happened to the task with this key, in which process, now."""
    with connection.cursor() as cursor:
        cursor.execute(
            "INSERT INTO faults_effects (key, event, pid) VALUES (%s, %s, %s)", [key, event, os.getpid()]
        )


def runs(key: str) -> int:
    """Return how often the task with this key has begun."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT count(*) FROM faults_effects WHERE key = %s AND event = 'begun'", [key])
        return int(cursor.fetchone()[0])


@shared_task
def work(key: str, seconds: float = 0, again: float | None = None) -> None:
    """Take that many seconds, in a second run `again` of them."""
    record(key, "begun")
    time.sleep(seconds if again is None or runs(key) == 1 else again)
    record(key, "finished")


@shared_task
def carry(key: str, load: str) -> None:
    """Come in a large message."""
    record(key, "begun")
    record(key, "finished")


@shared_task
def read_row(key: str) -> None:
    """Need what the sender wrote in the transaction in which it sent this task."""
    record(key, "begun")
    with connection.cursor() as cursor:
        cursor.execute("SELECT FROM faults_effects WHERE key = %s AND event = 'row'", [key])
        if not cursor.rowcount:
            raise LookupError(f"no row {key}")
    record(key, "finished")


@shared_task
def hang(key: str) -> None:
    """Hang for ever."""
    record(key, "begun")
    time.sleep(600)


@shared_task
def ignore_soft_limit(key: str) -> None:
    """Go on after the soft limit, as code with a broad `except` does."""
    record(key, "begun")
    try:
        time.sleep(600)
    except SoftTimeLimitExceeded:
        time.sleep(600)


@shared_task
def eat_memory(key: str, megabytes: int) -> None:
    """Take far too much memory, but only in the first run."""
    record(key, "begun")
    if runs(key) == 1:
        hoard = [b"x" * (1 << 20) for _ in range(megabytes)]
        time.sleep(len(hoard))
    record(key, "finished")


@shared_task
def leak(key: str, megabytes: int) -> None:
    """Take memory and keep it, as a cache without a bound does."""
    record(key, "begun")
    KEPT.append(b"x" * (megabytes << 20))
    record(key, "finished")


@shared_task(max_retries=2, retry_backoff_max=1)
def unlucky(key: str) -> None:
    """Meet an error that may pass, in the first two runs."""
    record(key, "begun")
    if runs(key) < 3:
        raise ConnectionError("on purpose")
    record(key, "finished")


@shared_task
def come_back(key: str, times: int, pause: float = 0) -> None:
    """Have the message put back, so many times."""
    record(key, "begun")
    time.sleep(pause)
    if runs(key) <= times:
        raise Reject("on purpose", requeue=True)
    record(key, "finished")


@shared_task(max_retries=1)
def die(key: str) -> None:
    """Kill the process, as a crash in a library does; this one is given up after one retry."""
    record(key, "begun")
    os.kill(os.getpid(), signal.SIGKILL)


@shared_task
def do_nothing() -> None:
    """Cost what Celery costs."""


@shared_task
def note_the_time(path: str) -> None:
    """Write the seconds since 1970 into a file."""
    Path(path).write_text(str(time.time()))
