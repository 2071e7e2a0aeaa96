"""The tasks of the version that comes after faults/older.py."""

from celery import shared_task

from faults.tasks import record


@shared_task(name="faults.tasks.greet")
def greet(key: str, language: str = "en") -> None:
    """With an argument more than the version before."""
    record(key, "begun")
    record(key, "finished")


@shared_task(name="faults.tasks.welcome")
def welcome(key: str) -> None:
    """Be unknown to the version before."""
    record(key, "begun")
    record(key, "finished")
