"""Sends tasks and waits for them: `python -m tests.waiting` prints what it met, a line of JSON each.

A process of its own, because the results of Celery keep connections for as long as they live.
"""

import json
from collections.abc import Callable
from typing import Any

import django
from celery import chain, chord, group
from django.db import transaction

django.setup()

from config.celery import app  # noqa: E402  # needs the settings
from tests.harness import PATIENCE  # noqa: E402
from tests.senders import add, total  # noqa: E402

number: Any = add  # celery-types does not know `send_at_once`

SENDS: dict[str, Callable[[], Any]] = {
    "task": lambda: number.delay(1, 2),
    "send_task": lambda: app.send_task("tests.senders.add", (1, 2)),
    "chain": lambda: chain(number.s(1), number.s(2))(),
    "group": lambda: group(number.s(1), number.s(2))(),
    "group in a chain": lambda: chain(number.s(1), group(number.s(0), number.s(1)))(),
    "chord": lambda: chord([number.s(1), number.s(2)], total.s())(),
}
WAITS: dict[str, Callable[[Any], Any]] = {
    "get": lambda result: result.get(timeout=1),
    "wait": lambda result: result.wait(timeout=1),
    "get of a set": lambda result: app.ResultSet([result]).get(timeout=1),
    "join": lambda result: app.ResultSet([result]).join(timeout=1),
    "join_native": lambda result: app.ResultSet([result]).join_native(timeout=1),
    "iter_native": lambda result: app.ResultSet([result]).iter_native(timeout=1),
}


def refusal(wait: Callable[[Any], Any], result: Any) -> str:
    """Return what refuses to wait, empty when nothing does."""
    try:
        wait(result)
    except RuntimeError as error:
        return str(error)
    return ""


def main() -> None:
    """Try each way to send and each way to wait."""
    for kind, send in SENDS.items():
        with transaction.atomic():
            result = send()
            error = refusal(WAITS["get"], result)
        print(json.dumps([kind, error, result.get(timeout=PATIENCE)]))
    for way, wait in WAITS.items():
        with transaction.atomic():
            result = number.delay(1, 2)
            error = refusal(wait, result)
        print(json.dumps([way, error, result.get(timeout=PATIENCE)]))
    with transaction.atomic():
        result = chord([number.s(1), number.s(2)], total.s()).apply_async(send_at_once=True)
        print(
            json.dumps(
                ["at once", refusal(lambda result: result.get(timeout=PATIENCE), result), result.get()]
            )
        )


if __name__ == "__main__":
    main()
