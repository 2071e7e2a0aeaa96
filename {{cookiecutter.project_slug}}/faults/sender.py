"""A process that sends tasks, as a web process does: orders come in as lines of JSON, outcomes go out."""

import json
import os
import sys
import time
from collections.abc import Callable
from importlib import import_module
from typing import Any

import django
from celery import Celery, Task
from django.db import connection, transaction

django.setup()

from faults import tasks  # noqa: E402  # needs the settings
from faults.app import app  # noqa: E402

Order = dict[str, Any]


class FailingHookError(Exception):
    """What the hook of somebody else raises."""


def send(order: Order) -> str:
    """Send the task, and return its id."""
    task: Task = app.tasks[order["task"]]
    return str(task.apply_async(kwargs=order["kwargs"], **order["options"]).id)


def roll_back(order: Order) -> str:
    """Send the task in a transaction that writes its row and is rolled back."""
    with transaction.atomic():
        tasks.record(order["kwargs"]["key"], "row")
        sent = send(order)
        transaction.set_rollback(True)
    return sent


def commit_slowly(order: Order) -> str:
    """Send the task in a transaction that writes its row and takes another second to commit."""
    with transaction.atomic():
        tasks.record(order["kwargs"]["key"], "row")
        sent = send(order)
        with connection.cursor() as cursor:
            cursor.execute("SELECT pg_sleep(1)")
    return sent


def commit_after_a_failing_hook(order: Order) -> str:
    """Send the task in a transaction in which somebody before it has asked for a hook that fails."""

    def fail() -> None:
        raise FailingHookError

    sent = ""
    try:
        with transaction.atomic():
            tasks.record(order["kwargs"]["key"], "row")
            transaction.on_commit(fail)
            sent = send(order)
    except FailingHookError:
        tasks.record(order["kwargs"]["key"], "hook failed")
    return sent


WAYS: dict[str, Callable[[Order], str]] = {
    way.__name__: way for way in (send, roll_back, commit_slowly, commit_after_a_failing_hook)
}


def answer(**values: Any) -> None:
    """Write one line for the one who gave the order."""
    print(json.dumps(values), flush=True)


def main(app: Celery) -> None:
    """Do what the lines say, until there is none."""
    app.loader.import_default_modules()
    for module in os.environ.get("FAULTS_CODE", "faults.tasks").split(","):
        import_module(module)
    answer(ready=True)
    for line in sys.stdin:
        order = json.loads(line)
        began = time.monotonic()
        try:
            outcome: Order = {"id": WAYS[order["way"]](order), "error": "", "text": ""}
        except Exception as error:  # whatever it is, the one who asked gets to know it
            outcome = {"id": getattr(error, "task_id", ""), "error": type(error).__name__, "text": str(error)}
        answer(**outcome, seconds=time.monotonic() - began)


if __name__ == "__main__":
    main(app)
