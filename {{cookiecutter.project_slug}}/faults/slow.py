"""Code that makes beat slow: `imports` of its application names this module."""

import time
from typing import Any

from celery.signals import before_task_publish


@before_task_publish.connect
def dawdle(sender: str, **_: Any) -> None:
    """Take four seconds to send, as a receiver does that asks a slow server."""
    time.sleep(4)
