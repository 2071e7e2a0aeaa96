"""Tasks of the next version of the project: only workers that include this module know them."""

from typing import Any

from celery import shared_task

from tests.tasks import count


@shared_task(bind=True, name="tests.tasks.brand_new")
def brand_new(self: Any) -> None:
    """A task that the version before does not have."""
    count(self)


@shared_task(bind=True, name="tests.tasks.extended")
def extended(self: Any, colour: str, *, size: str = "small") -> None:
    """A task that has an argument more than in the version before."""
    count(self)
