"""Tasks that send others from inside a transaction, and some whose result is waited for."""

from typing import Any

from celery import shared_task
from django.core.cache import cache
from django.db import transaction

from tests.tasks import count


@shared_task(bind=True, ignore_result=False)
def add(self: Any, *numbers: int) -> int:
    """Return the sum. Note which task sent this one."""
    cache.set(f"parent-of-{self.request.id}", self.request.parent_id)
    count(self)
    return sum(numbers)


@shared_task(ignore_result=False)
def total(numbers: list[int]) -> int:
    """Return the sum of what a group returned."""
    return sum(numbers)


@shared_task
def give_integer_keys() -> dict[int, int]:
    """Return what no other task can be given."""
    return {1: 2}


@shared_task(bind=True)
def retry_inside_a_transaction(self: Any) -> None:
    """Ask for a second run where the failure of the first rolls back."""
    with transaction.atomic():
        if count(self) == 1:
            raise self.retry(countdown=0)


@shared_task(bind=True)
def replace_inside_a_transaction(self: Any) -> None:
    """Have another task run in place of this one, under its id."""
    with transaction.atomic():
        self.replace(add.si(1, 2))


@shared_task(bind=True)
def send_inside_a_transaction(self: Any, task_id: str, *, fail: bool) -> None:
    """Send a task, then commit or roll back."""
    with transaction.atomic():
        add.apply_async((1, 2), task_id=task_id)
        if fail:
            raise ValueError("on purpose")


@shared_task
def send_one(task_id: str) -> None:
    """Send a task."""
    add.apply_async((1, 2), task_id=task_id)


@shared_task
def send_by_another(task_id: str) -> None:
    """Have another task, that runs in this process, send a task inside the transaction of this one."""
    with transaction.atomic():
        send_one.apply((task_id,), task_id=f"sender of {task_id}")
