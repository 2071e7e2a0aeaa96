"""The tasks of a version of the project, as faults/newer.py has the next one's."""

from celery import shared_task

from faults.tasks import record


@shared_task(name="faults.tasks.greet")
def greet(key: str) -> None:
    """Without the argument that is to come."""
    record(key, "begun")
    record(key, "finished")


@shared_task(name="faults.tasks.say_farewell")
def say_farewell(key: str) -> None:
    """Be unknown to the next version."""
    record(key, "begun")
    record(key, "finished")
