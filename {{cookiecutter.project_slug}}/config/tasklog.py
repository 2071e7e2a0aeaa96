"""What each line that a task logs tells besides its id: its queue, which attempt it is, how long it waited.

django-structlog logs the start, the end with its duration, and why a task is tried again.
"""

import time
from typing import Any

import structlog
from django_structlog.celery.signals import bind_extra_task_metadata

from reliability.messages import runnable_since


def describe(task: Any, **_: Any) -> None:
    """Add to what this run logs. `wait_ms` counts from sending, or from the ETA of a countdown or a retry."""
    request = task.request
    found: dict[str, Any] = {"attempt": request.retries + 1, "queue": _queue(request)}
    since = runnable_since(request.get("sent_at"), request.eta)
    if since is not None:
        found["wait_ms"] = max(0, round((time.time() - since) * 1000))
    structlog.contextvars.bind_contextvars(**found)


def _queue(request: Any) -> str:
    """Return the queue; RabbitMQ puts 28 bits before its name when it has delayed the message."""
    return str((request.delivery_info or {}).get("routing_key") or "").rpartition(".")[2]


def connect() -> None:
    """Begin with the application."""
    bind_extra_task_metadata.connect(describe)
