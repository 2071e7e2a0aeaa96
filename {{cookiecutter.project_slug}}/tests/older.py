"""A task of the version before; tests/newer.py has it of the next. In a deploy workers of both are there."""

from typing import Any

from celery import shared_task

from tests.tasks import count


@shared_task(bind=True, name="tests.tasks.extended")
def extended(self: Any, colour: str) -> None:
    """Without the argument that is to come."""
    count(self)
