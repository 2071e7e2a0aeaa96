"""A worker that imports this sends another task, which fails once, when a report is written."""

from typing import Any

from celery.signals import task_success

from jobs.tasks import write_report
from tests.tasks import misbehave


@task_success.connect(sender=write_report)
def send_another(**_: Any) -> None:
    """Send it, as a task does that ends with sending the next one."""
    misbehave.delay("once")
