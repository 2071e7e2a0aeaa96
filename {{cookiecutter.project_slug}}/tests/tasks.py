"""Tasks that misbehave on purpose. The workers of the tests know them, no other does."""

import time

from celery import shared_task
from celery.exceptions import SoftTimeLimitExceeded


@shared_task
def stubborn() -> None:
    """Go on after the soft limit, as code with a broad `except` does."""
    try:
        time.sleep(600)
    except SoftTimeLimitExceeded:
        time.sleep(600)
